"""Completion through click's protocol, asked of real ``bench`` processes as a shell asks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import registry
from bench.cli import completion
from bench.protocol import builtin_protocols
from bench.report.papers.published import published_tables
from bench.store import run_directory

ROOT = Path(__file__).parents[2]
PROGRAM = (
    "import sys\n"
    "from bench.cli import main\n"
    "try: main()\n"
    "finally: assert not {'torch', 'pandas', 'numpy'} & set(sys.modules), 'a slow import'"
)


@pytest.fixture
def completed(tmp_path):
    """Complete the last of some words in a folder, as bash asks; gives the candidates."""

    def ask(*words, folder=tmp_path):
        asked = {"_BENCH_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["bench", *words])}
        environment = {**os.environ, **asked, "COMP_CWORD": str(len(words))}
        command = [sys.executable, "-c", PROGRAM]
        ran = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
        assert "slow import" not in ran.stderr
        return ran.stdout.splitlines()

    return ask


def plain(names):
    return [f"plain,{name}" for name in names]


@pytest.mark.parametrize("kind", ["models", "backends", "datasets"])
def test_options_complete_the_names_of_plugins(completed, kind):
    assert completed("run", f"--{kind}", "") == plain([*getattr(registry, kind).names(), "all"])


@pytest.mark.parametrize(
    ("words", "candidates"),
    [
        (["run", "--models", "fs"], ["fsvae"]),
        (["run", "--models", "fsvae,an"], ["fsvae,ann_vae"]),
        (
            ["run", "--models", "fsvae,"],
            [
                "fsvae,ann_vae",
                "fsvae,esvae",
                "fsvae,sddpm",
                "fsvae,sgad",
                "fsvae,sgan",
                "fsvae,spiking_diffusion",
                "fsvae,swgan",
                "fsvae,taid",
                "fsvae,vq_svae",
                "fsvae,all",
            ],
        ),
        (["run", "--models", "=", "fsvae,an"], ["fsvae,ann_vae"]),
        (["profile", "--datasets", "digits,mn"], ["digits,mnist"]),
        (["run", "--log", "tens"], ["tensorboard"]),
        (["data", "fetch", "mnist", "fash"], ["fashion_mnist"]),
        (["results", "DIR", "--where", "metric=fid_c"], ["metric=fid_clean"]),
        (["results", "DIR", "--where", "metric", "=", "fid_c"], ["fid_clean"]),
        (["results", "DIR", "--where", "metric", "=", "fid,kid,ssi"], ["fid,kid,ssim"]),
        (["plot", "DIR", "--where", "backend", "="], registry.backends.names()),
        (["plot", "DIR", "samp"], ["samples"]),
        (["ls", "ext"], ["extractors"]),
        (["re"], ["results", "report", "reference"]),
        (["reference", "u"], ["update"]),
        (["run", "--protocol", "sm"], ["smoke"]),
        (["run", "--protocol", ""], builtin_protocols()),
        (["table", "es"], [name for name in published_tables() if name.startswith("es")]),
    ],
    ids=str,
)
def test_the_last_word_is_completed(completed, words, candidates):
    assert completed(*words) == plain(candidates)


def test_a_column_without_a_value_offers_names_of_that_column(completed):
    offered = completed("results", "DIR", "--where", "mo")
    assert offered == plain(f"model={name}" for name in registry.models.names())


def test_a_plugin_is_completed_like_the_rest(completed, plugins, tmp_path, monkeypatch):
    plugins("plugin_x", "raise OSError('not imported')", models={"fsvae2": "plugin_x:X"})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    assert completed("run", "--models", "fsv") == plain(["fsvae", "fsvae2"])


@pytest.mark.parametrize(
    "verb", [["report"], ["site"], ["plot"], ["results"], ["compare"], ["reference", "update"]]
)
def test_run_directories_are_found_below(completed, verb, tmp_path):
    for run in ("runs/smoke", "runs/quick", "results/reference/smoke", ".hidden/run", "a/b/c/d"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / completion.RUN_FILE).touch()
    (tmp_path / "runs/smoke/cells").mkdir()
    found = ["results/reference/smoke", "runs/quick", "runs/smoke"]
    assert completed(*verb, "") == plain(found)
    assert completed(*verb, "ru") == plain(found[1:])
    assert completed(*verb, "runs/s") == plain(["runs/smoke"])
    assert completed(*verb, "a/") == plain(["a/b/c/d"])
    assert completed(*verb, f"{tmp_path}/runs/q") == plain([f"{tmp_path}/runs/quick"])


def test_other_folders_and_files_are_left_to_the_shell(completed, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    assert completed("report", "else") == ["dir,else"]
    assert completed("run", "--protocol", "min") == ["file,min"]


def test_the_second_run_directory_of_a_comparison(completed, tmp_path):
    assert completed("compare", "DIR", "results/reference/sm", folder=ROOT) == plain(
        ["results/reference/smoke"]
    )


def test_completion_knows_the_file_of_a_run_directory():
    assert run_directory.RUN_FILE == completion.RUN_FILE


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell):
    environment = {**os.environ, "_BENCH_COMPLETE": f"{shell}_source"}
    command = [sys.executable, "-m", "bench"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert f"_BENCH_COMPLETE={shell}_complete" in ran.stdout


def test_bash_itself_completes(tmp_path):
    """The script in a real bash, with words broken as bash breaks them."""
    program = tmp_path / "bench"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m bench "$@"\n')
    program.chmod(0o755)
    script = """
        eval "$(_BENCH_COMPLETE=bash_source bench)"
        complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            _bench_completion bench; echo "${COMPREPLY[@]}"; }
        complete_words bench run --models fsvae,an
        complete_words bench results runs/smoke --where metric = fid_c
        complete_words bench run --models = fsvae,
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert ran.stdout.splitlines() == [
        "fsvae,ann_vae",
        "fid_clean",
        "fsvae,ann_vae fsvae,esvae fsvae,sddpm fsvae,sgad fsvae,sgan fsvae,spiking_diffusion "
        "fsvae,swgan fsvae,taid fsvae,vq_svae fsvae,all",
    ]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_value_after_an_equals_sign_keeps_its_option(shell):
    incomplete = {"zsh": "2", "fish": "--models=fsvae,an"}[shell]
    asked = {"_BENCH_COMPLETE": f"{shell}_complete", "COMP_CWORD": incomplete}
    environment = {**os.environ, **asked, "COMP_WORDS": "bench run --models=fsvae,an"}
    command = [sys.executable, "-m", "bench"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "--models=fsvae,ann_vae" in ran.stdout


def test_fish_gets_candidates_that_hold_commas_whole():
    environment = {**os.environ, "_BENCH_COMPLETE": "fish_source"}
    command = [sys.executable, "-m", "bench"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert 'string split --max 1 ","' in ran.stdout
