import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bench

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def blocks():
    text = README.read_text(encoding="utf-8")
    return re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)


def test_a_model_from_a_package_outside_installs_and_runs(blocks, tiny_flags, tmp_path):
    """What the README says of your own model, typed as it stands there."""
    package = tmp_path / "mine"
    package.mkdir()
    (source,) = (code for language, code in blocks if "class Mine" in code)
    (project,) = (code for language, code in blocks if 'name = "mine"' in code)
    lines = [line for line in (source + project).splitlines() if line]
    assert len(lines) <= 30
    (package / "mine.py").write_text(source)
    (package / "pyproject.toml").write_text(project)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", site, package], check=True, capture_output=True)
    command = [sys.executable, "-c", "from bench.cli import main; main()"]
    command += ["run", "--models", "mine", *tiny_flags, "--out", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=tmp_path)
    rows = bench.load_results(tmp_path / "run")
    assert set(rows["model"]) == {"fad_autoencoder", "mine"}
    status = rows[rows["model"] == "mine"].groupby("metric")["status"].first()
    assert status["reconstruction_loss"] == status["sampling_throughput"] == "ok"
    assert status["firing_rate"] == "not_applicable"


def test_the_first_two_commands_are_install_and_run_then_test(blocks):
    commands = [code.strip() for language, code in blocks if language == "sh"]
    assert commands[0].endswith("bench run")
    assert commands[1].endswith("tox")
    ci = (README.parent / ".ci" / "run").read_text()
    assert commands[1].split("&&")[-1].strip() in ci


@pytest.mark.parametrize("page", [README, *sorted(README.parent.glob("docs/*.md"))])
def test_every_bench_command_in_the_docs_has_the_options_it_is_given(page, bench_cli):
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for verb, rest in re.findall(
        r"bench (run|report|plot|table|compare|profile|doctor)\b([^\n`|#]*)", text
    ):
        _, help_text, _ = bench_cli(verb, "--help")
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in help_text, (verb, option)


def test_the_docs_name_every_metric_setting_and_noise():
    from bench.noise import INPUT_NOISE, LATENT_NOISE
    from bench.registry import metrics

    text = (README.parent / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name in [*metrics.names(), *INPUT_NOISE, *LATENT_NOISE]:
        assert f"`{name}`" in text


def test_the_docs_name_every_weights_file():
    from bench.metrics.extractors import inception
    from bench.registry import extractors

    text = (README.parent / "docs" / "metrics.md").read_text(encoding="utf-8")
    known = {name for e in extractors.names() for name in extractors.load(e).weight_names}
    assert set(re.findall(r"`--weights (\w+)=", text)) < known
    assert all(name in text for name in known)
    variables = {inception.VARIABLE, inception.TORCHVISION_VARIABLE}
    assert set(re.findall(r"BENCH_INCEPTION\w+", text)) == variables
