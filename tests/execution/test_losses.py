"""On a GPU losses are read every so many batches. Here a run on the CPU reads them so."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rows import reproducible

import bench
from bench.training import loop
from bench.training.losses import BATCHES_PER_READING, RunningLosses

DIVERGING = """
import torch
from toys import Steady


class Diverging(Steady):
    steps = 0

    def training_step(self, images, step):
        self.steps += 1
        return {"loss": torch.tensor(float("inf") if self.steps == 5 else 1.0)}
"""


@pytest.fixture
def read_rarely(monkeypatch):
    monkeypatch.setattr(loop, "RunningLosses", lambda _: RunningLosses(torch.device("cuda")))


@given(st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=130))
def test_sums_do_not_depend_on_how_often_losses_are_read(values):
    on_cpu, on_gpu = (RunningLosses(torch.device(name)) for name in ("cpu", "cuda"))
    for number, value in enumerate(values, start=1):
        on_cpu.add({"loss": value}, 7)
        on_gpu.add({"loss": torch.tensor(value)}, 7)
        assert on_cpu.due
        assert on_cpu.read() == {"loss": value}
        assert on_gpu.due == (number % BATCHES_PER_READING == 0)
        if on_gpu.due:
            assert on_gpu.read() == {"loss": value}
    assert on_gpu.sums() == on_cpu.sums() == {"loss": pytest.approx(7 * sum(values))}


def test_rows_and_records_are_the_same(tiny, tmp_path, request):
    def run(name):
        out = tmp_path / name
        asked = {"settings": [*tiny, "epochs=2"], "metrics": "psnr,fad,firing_rate"}
        rows = bench.run("ann_vae,esvae", backends="fused", **asked, out=out)
        records = [
            json.loads(path.read_text()) for path in sorted(out.glob("cells/*/training.json"))
        ]
        return reproducible(rows), [[e["losses"] for e in r["epochs"]] for r in records]

    rows, losses = run("often")
    request.getfixturevalue("read_rarely")
    again, same = run("rarely")
    assert rows.equals(again)
    assert losses == same
    assert len(losses) == 2


@pytest.mark.usefixtures("read_rarely")
def test_a_loss_that_diverges_is_told_with_the_batches_that_it_can_be_in(plugins, tiny, tmp_path):
    plugins("plugin_diverging", DIVERGING, models={"diverging": "plugin_diverging:Diverging"})
    settings = [*tiny, "batch_size=4"]
    rows = bench.run("diverging", settings=settings, metrics="psnr", out=tmp_path / "run")
    failed = rows[rows["status"] != "not_asked"]
    assert set(failed["reason"]) == {
        "TrainingDivergedError: the loss became inf in epoch 1, batches 1 to 16"
    }
