import os
import signal
import sys

import commands
import numpy as np
import pytest
from rows import reproducible

import bench
from bench import BenchError

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_DEDUP_LOGS", "0")
        yield


@pytest.fixture
def cluster():
    """A head that runs no cells, to which nodes are added."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield made
    made.shutdown()


def rows_of(out):
    return reproducible(bench.load_results(out))


@pytest.mark.full
def test_workers_take_neither_a_folder_for_the_suite_nor_relative_paths_for_their_own(
    tiny_flags, tmp_path, monkeypatch
):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("raise SystemExit('not the suite')")
    images = np.random.default_rng(0).integers(0, 256, (80, 32, 32), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", train_images=images, test_images=images[:40])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_CACHE", "cache")
    flags = ["--models", "ann_vae", "--datasets", "npz:own.npz", *tiny_flags, "--metrics", "fad",
             "--out", "run"]  # fmt: skip
    code, _, err = commands.run("cluster", "run", *flags)
    assert code == 0, err
    assert set(bench.load_results("run")["status"]) >= {"ok"}
    assert list((tmp_path / "cache").iterdir())


@pytest.mark.full
def test_cells_of_nodes_that_are_lost_go_on_elsewhere(cluster, tiny_flags, tmp_path):
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    flags = ["--models", "esvae", "--backends", "reference,snntorch", *tiny_flags,
             "--set", "epochs=24", "--metrics", "psnr,firing_rate"]  # fmt: skip
    code, _, err = commands.run("run", *flags, "--out", tmp_path / "whole")
    assert code == 0, err
    out = tmp_path / "run"
    again = ["cluster", "run", *flags, "--address", cluster.address, "--out", out]
    with commands.started(*again, "--checkpoint-every", "0.3s") as process:
        commands.wait_for(lambda: len(list(out.glob("cells/esvae*/checkpoint.pt"))) == 2, process)
        for node in nodes:
            cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        _, err = process.communicate(timeout=commands.PATIENCE)
    assert process.returncode == 0, err
    assert rows_of(out).equals(rows_of(tmp_path / "whole"))
    logs = "".join(path.read_text() for path in out.glob("cells/esvae*/cell.log"))
    assert "going on from epoch" in logs


@pytest.mark.full
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_has_the_cells_save(number, code, cluster, tiny_flags, tmp_path):
    cluster.add_node(num_cpus=2)
    out = tmp_path / "run"
    flags = ["cluster", "run", "--models", "esvae", "--backends", "fused,reference", *tiny_flags,
             "--set", "epochs=5000", "--address", cluster.address, "--out", out]  # fmt: skip
    with commands.started(*flags) as process:
        lines = ("esvae fused .* epoch 1/5000", "esvae reference .* epoch 1/5000")
        commands.wait_for_lines(process, *lines)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert len(list(out.glob("cells/esvae*/checkpoint.pt"))) == 2, err
    assert err.count("of 5000, batch") == 2


def test_an_address_without_a_cluster_is_one_line(tmp_path):
    code, _, err = commands.run(
        "cluster", "run", "--address", "127.0.0.1:1", "--out", tmp_path / "run"
    )
    assert code == 2
    assert err.startswith("Error: No Ray cluster answers at '127.0.0.1:1': ")
    assert len(err.splitlines()) == 1


@pytest.mark.full
def test_a_cell_that_no_node_can_hold_is_refused(cluster, tmp_path):
    cluster.add_node(num_cpus=1)
    code, _, err = commands.run(
        "cluster", "run", "--address", cluster.address, "--cpus-per-cell", "64",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert code == 2
    assert "A cell takes 64 CPUs and 0 GPUs, and no node of the cluster has them" in err


def test_without_ray_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BenchError, match=r"pip install 'spikegen-bench\[cluster\]'"):
        bench.run("ann_vae", executor="ray", out=tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"executor": "slurm"}, "Executor 'slurm': expected local or ray"),
        ({"address": "auto"}, "are for the executor ray"),
        ({"executor": "ray", "jobs": 2}, "Jobs are for the executor local"),
        ({"executor": "ray", "cpus_per_cell": 0}, "CPUs per cell: expected a whole number from 1"),
        ({"executor": "ray", "gpus_per_cell": -1}, "GPUs per cell: expected a number from 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, words, tmp_path):
    with pytest.raises(BenchError, match=words):
        bench.run("ann_vae", out=tmp_path / "run", **arguments)
    assert not os.path.exists(tmp_path / "run")
