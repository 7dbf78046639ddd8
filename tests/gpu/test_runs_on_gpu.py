"""Whole runs on a GPU: every model, backend and precision, rows and resume."""

import signal

import commands
import pytest
from tiny import TINY

import bench

GRAPHS = ("training_graph_replays", "sampling_graph_replays")


def cells(rows):
    return rows[rows["kind"] == "model"]


@pytest.mark.parametrize(
    ("precision", "chosen"), [("tf32", "all"), ("float32", ["fused"]), ("bfloat16", ["fused"])]
)
def test_every_model_has_its_rows(precision, chosen, tmp_path):
    settings = [*TINY, "epochs=3", f"precision={precision}"]
    out = tmp_path / "run"
    rows = cells(bench.run(backends=chosen, settings=settings, device="cuda", out=out))
    assert set(rows["device"].str.partition(" ")[0]) == {"cuda"}
    assert not rows["status"].isin(["failed", "skipped"]).any(), rows[rows["status"] == "failed"]
    replays = rows[rows["metric"].isin(GRAPHS)]
    assert replays["value"].between(0, 1, inclusive="right").all(), list(replays["reason"])
    losses = rows[rows["metric"] == "reconstruction_loss"].groupby("model")["value"]
    assert (losses.max() - losses.min() < 0.05).all()


def test_a_training_that_is_stopped_goes_on(tmp_path, tiny_flags):
    flags = ["run", "--models", "esvae", "--backends", "fused", *tiny_flags, "--device", "cuda"]
    flags += ["--set", "epochs=300", "--checkpoint-every", "1epochs", "--out", tmp_path / "run"]
    with commands.started(*flags, threads=2) as process:
        commands.wait_for(lambda: list(tmp_path.glob("run/cells/esvae*/checkpoint.pt")), process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=commands.PATIENCE)
    assert process.returncode == 130
    code, _, err = commands.run(*flags, threads=2)
    assert code == 0, err
    (log,) = tmp_path.glob("run/cells/esvae*/cell.log")
    assert "going on from epoch" in log.read_text()
    rows = cells(bench.load_results(tmp_path / "run"))
    assert not rows["status"].isin(["failed"]).any()
    share = rows.set_index("metric").loc["training_graph_replays", "value"]
    assert 0.9 < share < 1
