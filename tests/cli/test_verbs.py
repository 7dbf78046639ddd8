import re
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from bench.cli import cluster, run
from bench.registry import registries


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("models", ["ann_vae", "esvae", "fsvae", "taid"]),
        ("backends", ["fused", "reference", "snntorch", "spikingjelly"]),
        ("datasets", ["celeba", "cifar10", "digits", "fashion_mnist", "mnist"]),
        ("metrics", ["firing_rate", "peak_memory", "reconstruction_loss"]),
        ("extractors", ["autoencoder", "efficientnet_lite0", "inception_torch_fidelity"]),
        ("protocols", ["esvae_paper", "fsvae_paper", "quick", "smoke", "standard", "taid_paper"]),
    ],
)
def test_ls_lists_names_with_what_they_are(bench_cli, kind, names):
    code, out, _ = bench_cli("ls", kind)
    assert code == 0
    for name in names:
        line = next(line for line in out.splitlines() if line.split()[:1] == [name])
        assert len(line.split()) > 5


def test_ls_shows_a_plugin_and_its_package(bench_cli, plugins):
    source = '"""Mine."""\nimport toys\nclass X(toys.Steady):\n    "A model of mine."'
    plugins("plugin_x", source, models={"x": "plugin_x:X"})
    _, out, _ = bench_cli("ls", "models")
    assert re.search(r"x\s+A model of mine\.\s+plugin_x 1\.0", out)


@pytest.mark.parametrize("kind", ["neurons", "results"])
def test_ls_of_something_unknown(bench_cli, kind):
    code, _, err = bench_cli("ls", kind)
    assert code == 2
    assert all(f"'{known}'" in err for known in [*registries(), "protocols"])


def test_ls_lists_each_registry_of_the_suite():
    groups = {group for group in entry_points().groups if group.startswith("bench.")}
    assert {f"bench.{kind}" for kind in registries()} == groups


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["compare", "--update"], "--update"),
        (["compare", "--keep"], "--keep"),
        (["ls", "models", "--sort", "name"], "--sort"),
        (["ls", "models", "runs"], "runs"),
        (["run", "--address", "auto"], "--address"),
        (["cluster", "run", "--jobs", "2"], "--jobs"),
    ],
)
def test_a_verb_has_only_options_of_its_own(bench_cli, arguments, refused):
    code, _, err = bench_cli(*arguments)
    assert code == 2
    assert refused in err
    assert err.count("\n") == 1


def test_a_cluster_runs_with_the_options_of_a_run():
    here, there = (
        {option.name for option in command.params} for command in (run.command, cluster.run)
    )
    assert here - there == {"jobs"}
    assert there - here == {"address", "cpus_per_cell", "gpus_per_cell"}


def test_a_module_is_the_same_program():
    ran = subprocess.run([sys.executable, "-m", "bench", "ls", "models"], capture_output=True)
    assert ran.returncode == 0
    assert b"esvae" in ran.stdout


def test_data_status_tells_what_is_here_and_what_is_not(bench_cli, tmp_path):
    code, out, _ = bench_cli("data", "status", "--data-root", tmp_path)
    assert code == 0
    told = sections(out)
    assert "  images      1,437 train, 360 test, 1x8x8" in told["digits"]
    assert re.search("  fingerprint [0-9a-f]{64}", told["digits"])
    assert "  not here    looked for train-images-idx3-ubyte.gz" in told["mnist"]
    assert "  licence     MIT, Zalando SE" in told["fashion_mnist"]
    assert "  source      https://mmlab.ie.cuhk.edu.hk" in told["celeba"]


def sections(out):
    """What ``data status`` says, by dataset."""
    return {part.partition("\n")[0]: part for part in out.split("\n\n")[1:]}


def test_data_status_of_real_files(bench_cli, real_data):
    _, out, _ = bench_cli("data", "status", "--data-root", real_data)
    assert "  here        complete" in sections(out)["mnist"]
    assert "  images      60,000 train, 10,000 test, 1x28x28" in sections(out)["mnist"]


def test_data_fetch_of_what_is_here_verifies_it(bench_cli, real_data):
    code, out, _ = bench_cli("data", "fetch", "mnist", "digits", "--data-root", real_data)
    assert code == 0
    assert "mnist: here, 60,000 training and 10,000 test images (complete)" in out
    assert "digits: here, 1,437 training and 360 test images (complete)" in out


def test_data_fetch_that_fails_is_one_line(bench_cli, tmp_path, monkeypatch):
    def unreachable(*arguments, **options):
        raise OSError("network is unreachable")

    monkeypatch.setattr("socket.create_connection", unreachable)
    code, _, err = bench_cli("data", "fetch", "mnist", "--data-root", tmp_path)
    assert code == 2
    assert "The dataset 'mnist' cannot be downloaded" in err
    assert err.count("\n") == 1


def test_data_fetch_of_an_unknown_name(bench_cli, tmp_path):
    code, _, err = bench_cli("data", "fetch", "mnits", "--data-root", tmp_path)
    assert code == 2
    assert "Did you mean: mnist?" in err


def test_no_verb_shows_the_help(bench_cli):
    code, out, err = bench_cli()
    assert (code, err) == (2, "")
    assert out.startswith("Usage: bench")
