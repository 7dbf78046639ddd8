"""The rows of a run do not depend on how many CPUs, processes and nodes computed them."""

import commands
import pytest
from rows import reproducible
from tiny import SLOW_METRICS, TINY

import bench
from bench.store.inspection import inspect

# FSVAE has every kind of layer; other tests compare ESVAE's rows over processes and nodes.
ALL_BACKENDS = ["run", "--models", "ann_vae,fsvae", "--backends", "all", "--skip", SLOW_METRICS]
# Large enough that PyTorch spreads sums over threads, which then depend on the number of threads.
SETTINGS = (*TINY, "batch_size=32", "train_images=128", "time_steps=4")
FLAGS = [part for setting in SETTINGS for part in ("--set", setting)]


@pytest.fixture(scope="module")
def run_apart(tmp_path_factory):
    """Run models on every backend with a cache of their own; gives the output and the folder."""

    def run(name, *flags, command=ALL_BACKENDS, threads=1):
        folder = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BENCH_CACHE", str(folder / "cache"))
            patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
            arguments = [*command, *flags, "--out", folder / "run"]
            code, out, err = commands.run(*arguments, threads=threads)
        assert code == 0, err
        return out, err, folder / "run"

    return run


def rows_of(out):
    return reproducible(bench.load_results(out))


@pytest.fixture(scope="module")
def serial(run_apart):
    """The rows of one process with one thread."""
    return rows_of(run_apart("serial", *FLAGS, "--jobs", "1")[-1])


@pytest.mark.full
def test_rows_are_equal_for_any_number_of_jobs_and_of_threads_of_the_environment(run_apart, serial):
    """Both change at once: neither moves a row."""
    assert set(serial["backend"]) == {"torch", "fused", "reference", "snntorch", "spikingjelly"}
    _, _, out = run_apart("other", *FLAGS, "--jobs", "2", threads=4)
    assert rows_of(out).equals(serial)


@pytest.mark.full
def test_rows_are_equal_on_a_cluster_that_is_started_here(run_apart, serial):
    command = ["cluster", *ALL_BACKENDS]
    told, err, out = run_apart("cluster", *FLAGS, command=command, threads=2)
    assert rows_of(out).equals(serial)
    assert err == ""
    assert told.count("ok in") == serial["cell_key"].nunique()
    for cell in (out / "cells").iterdir():
        assert "done in" in (cell / "cell.log").read_text()
    assert inspect(out) == []
