"""On a GPU losses are read every so many batches. Here a run on the CPU reads them so."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rows import reproducible

import bench
from bench.system.progress import Reporter, WorkReporter
from bench.training import loop
from bench.training.losses import BATCHES_PER_READING, RunningLosses

ALTERNATING = """
import torch
from toys import Steady


class Alternating(Steady):
    def training_step(self, images, step):
        losses = {"discriminator_loss": torch.tensor(float(step.step))}
        if step.step % 2 == 1:
            losses["generator_loss"] = torch.tensor(float(step.step + 1))
        return losses


class HalfDiverging(Steady):
    def training_step(self, images, step):
        ratio = float("nan") if step.step == 5 else 1.0
        return {"discriminator_loss": 1.0, "generator_loss": ratio}
"""
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


class Losses(Reporter):
    """Keeps the losses of each batch that a run reports."""

    def __init__(self):
        self.reported = []

    def started(self, index, total, cell):
        return _CellLosses(self.reported)


class _CellLosses(WorkReporter):
    def __init__(self, reported):
        self.reported = reported

    def trained_batch(self, epoch, epochs, batch, batches, losses):
        self.reported.append(dict(losses))


@pytest.fixture
def alternating(plugins):
    models = {name: f"plugin_losses:{name}" for name in ("Alternating", "HalfDiverging")}
    plugins("plugin_losses", ALTERNATING, models=models)
    return {"settings": ["batch_size=16", "test_images=8", "epochs=1"], "metrics": "psnr"}


def test_losses_of_any_name_are_reported_and_averaged_over_their_steps(alternating, tmp_path):
    reporter = Losses()
    settings = [*alternating.pop("settings"), "train_images=64"]
    out = tmp_path / "run"
    bench.run("Alternating", settings=settings, **alternating, reporter=reporter, out=out)
    (path,) = out.glob("cells/*/training.json")
    (epoch,) = json.loads(path.read_text())["epochs"]
    assert epoch["losses"] == {"discriminator_loss": 1.5, "generator_loss": 3.0}
    assert reporter.reported[0] == {"discriminator_loss": 0.0}
    assert reporter.reported[-1] == {"discriminator_loss": 3.0, "generator_loss": 4.0}


def test_every_loss_is_guarded_against_nan(alternating, tmp_path):
    settings = [*alternating.pop("settings"), "train_images=96"]
    out = tmp_path / "run"
    rows = bench.run("HalfDiverging", settings=settings, **alternating, out=out)
    failed = rows[(rows["model"] == "HalfDiverging") & (rows["status"] == "failed")]
    assert set(failed["reason"]) == {
        "TrainingDivergedError: the loss generator_loss became nan in epoch 1, batch 6"
    }
