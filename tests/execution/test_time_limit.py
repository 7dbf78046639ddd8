"""A time limit stops a run as an interruption does, with an exit code of its own."""

import re
from concurrent.futures import ThreadPoolExecutor

import commands
import pytest
from rows import reproducible
from test_resume import SCHEDULED

import bench
from bench import BenchError, registry
from bench.system.signals import TimeLimitReached

LINE = r"The time limit is reached\.{saved} Finished cells are kept; the same command again runs "
LINE += r"the rest\."
PLACE = r"epoch \d+ of {epochs}, batch \d of 4"
# The time passes asleep, since other tests need the processor.
LONG = ["--models", "slow", "--seeds", "0,1"]


SLOW = """
import time


class Slow(Scheduled):
    def training_step(self, images, step):
        time.sleep(0.7)
        return super().training_step(images, step)
"""


@pytest.fixture
def slow(plugins, tmp_path):
    """A model whose epochs of four batches take three seconds."""
    plugins("plugin_resume", SCHEDULED + SLOW,
            models={"slow": "plugin_resume:Slow"})  # fmt: skip
    return tmp_path / "site"


def rows_of(out):
    return reproducible(bench.load_results(out))


@pytest.fixture
def one_metric(monkeypatch):
    monkeypatch.setattr(registry.metrics, "names", lambda: ["reconstruction_loss"])


@pytest.mark.full
def test_a_limit_shorter_than_an_epoch_goes_on_to_the_rows_of_one_run(
    slow, one_metric, bench_cli, tiny_flags, tmp_path
):
    flags = ["run", "--models", "slow", *tiny_flags, "--set", "epochs=2"]
    out, codes = tmp_path / "run", []
    while not codes or codes[-1] == 75:
        code, _, err = bench_cli(*flags, "--time-limit", "2.5s", "--out", out)
        codes.append(code)
        if code == 75:
            saved = rf"( A checkpoint is at {PLACE.format(epochs=2)}\.)?"
            assert re.fullmatch(LINE.format(saved=saved), err.strip())
        assert len(codes) < 15
    assert codes[-1] == 0, err
    assert len(codes) > 2
    assert not list(out.glob("cells/*/checkpoint.pt"))
    code, _, err = bench_cli(*flags, "--out", tmp_path / "whole")
    assert code == 0, err
    assert rows_of(out).equals(rows_of(tmp_path / "whole"))


def check_saved(code, err, out, cells):
    assert code == 75, err
    assert "Traceback" not in err
    (line,) = err.strip().splitlines()
    assert line.startswith("The time limit is reached. A checkpoint is at ")
    assert len(re.findall(PLACE.format(epochs=100000), line)) == cells
    assert len(list(out.glob("cells/slow*/checkpoint.pt"))) == cells


def long_flags(tiny_flags, limit, out):
    long = ["--set", "epochs=100000", "--time-limit", limit, "--out", out]
    return [*LONG, *tiny_flags, *long]


@pytest.mark.full
@pytest.mark.usefixtures("slow")
def test_the_cell_in_training_saves(bench_cli, one_metric, tiny_flags, tmp_path):
    out = tmp_path / "run"
    code, _, err = bench_cli("run", *long_flags(tiny_flags, "6s", out))
    check_saved(code, err, out, cells=1)


@pytest.mark.full
@pytest.mark.parametrize(
    ("how", "limit"), [(["run", "--jobs", "2"], "60s"), (["cluster", "run"], "100s")]
)
def test_every_cell_in_training_saves(how, limit, slow, tiny_flags, tmp_path):
    if how[0] == "cluster":
        pytest.importorskip("ray")
    out = tmp_path / "run"
    flags = [*how, *long_flags(tiny_flags, limit, out)]
    code, _, err = commands.run(*flags, threads=2, metrics=["reconstruction_loss"], paths=[slow])
    check_saved(code, err, out, cells=2)


@pytest.mark.parametrize(
    "how",
    [
        ["run"],
        ["run", "--jobs", "2"],
        pytest.param(["cluster", "run"], marks=pytest.mark.full),
    ],
)
def test_a_time_shorter_than_the_start_stops_too(how, tiny_flags, tmp_path):
    if how[0] == "cluster":
        pytest.importorskip("ray")
    flags = ["--models", "ann_vae", "--seeds", "0,1", *tiny_flags, "--set", "epochs=100000"]
    limit = ["--time-limit", "0.01s", "--out", tmp_path / "run"]
    code, _, err = commands.run(*how, *flags, *limit)
    assert code == 75, err
    assert re.search(LINE.format(saved=""), err)
    assert (tmp_path / "run" / "run.json").exists()


def test_finished_cells_are_in_the_table(tiny, tmp_path):
    settings = [*tiny, "epochs=1", "models.ann_vae.kl_weight=elbo"]
    out = tmp_path / "run"
    asked = {"settings": settings, "metrics": "psnr", "out": out}
    bench.run("ann_vae", **asked)
    (out / "results.parquet").unlink()
    with pytest.raises(TimeLimitReached):
        bench.run("ann_vae", seeds=range(90), time_limit="2s", **asked)
    assert "ann_vae" in set(bench.load_results(out)["model"])


def test_a_run_that_ends_in_time_is_as_always(tiny, tmp_path):
    asked = {"settings": tiny, "metrics": "psnr", "out": tmp_path / "run"}
    rows = bench.run("ann_vae", time_limit="1h", **asked)
    assert "failed" not in set(rows["status"])


def test_another_thread_is_refused(tiny, tmp_path):
    asked = {"settings": tiny, "out": tmp_path / "run", "time_limit": "1h"}
    with ThreadPoolExecutor(1) as pool, pytest.raises(BenchError, match="needs the main thread"):
        pool.submit(bench.run, "ann_vae", **asked).result()


@pytest.mark.parametrize("text", ["", "10", "ten minutes", "0s", "-1s", "2epochs", "never", "nan"])
@pytest.mark.parametrize("verb", [["run"], ["cluster", "run"]])
def test_a_limit_that_makes_no_sense_is_refused(text, verb, bench_cli, tmp_path):
    out = tmp_path / "run"
    code, _, err = bench_cli(*verb, "--models", "ann_vae", f"--time-limit={text}", "--out", out)
    assert (code, err.count("\n"), out.exists()) == (2, 1, False)
    assert f"Time limit {text!r}: expected for example 30s, 50min or 1.5h." in err
