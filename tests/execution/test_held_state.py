"""A checkpoint holds all that training changes, or the cell fails at the first checkpoint."""

import pytest

import bench

MODELS = """
import random

import numpy as np
import torch
from toys import Steady


class Forgetful(Steady):
    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.count, self.text, self.losses, self.seen = 0, "", [], {"images": 0}
        self.mean, self.array = torch.zeros(3), np.zeros(2)
        self.draws, self.torch_draws = random.Random(0), torch.Generator().manual_seed(0)
        self.numpy_draws = np.random.default_rng(0)
        self.inner = torch.nn.ReLU()
        self.inner.calls = 0
        self.best = float("nan")

    def training_step(self, images, step):
        self.change(step)
        return {"loss": 1.0}


CHANGES = {
    "count": lambda self, step: setattr(self, "count", self.count + 1),
    "text": lambda self, step: setattr(self, "text", "trained"),
    "losses": lambda self, step: self.losses.append(1.0),
    "seen": lambda self, step: self.seen.update(images=self.seen["images"] + 1),
    "mean": lambda self, step: self.mean.add_(1),
    "array": lambda self, step: self.array.__iadd__(1),
    "draws": lambda self, step: self.draws.random(),
    "torch_draws": lambda self, step: torch.rand(1, generator=self.torch_draws),
    "numpy_draws": lambda self, step: self.numpy_draws.random(),
    "inner.calls": lambda self, step: setattr(self.inner, "calls", self.inner.calls + 1),
    "late": lambda self, step: setattr(self, "late", step.step),
}
for number, change in enumerate(CHANGES.values()):
    globals()[f"Forgetful{number}"] = type(f"Forgetful{number}", (Forgetful,), {"change": change})


class Steadfast(Forgetful):
    def change(self, step):
        self.best = self.best


class Held(Forgetful0):
    def training_state(self):
        return {**super().training_state(), "count": self.count}

    def load_training_state(self, state):
        state = dict(state)
        self.count = state.pop("count")
        super().load_training_state(state)


class Placed(Steady):
    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def training_step(self, images, step):
        assert step.step == self.steps, "a step is counted twice or left out"
        self.steps += 1
        done = step.progress * self.protocol.epochs * step.batches
        assert abs(done - step.step) < 1e-9
        assert step.epoch == step.step // step.batches
        return {"loss": float(step.step)}
"""
NAMES = (
    "count",
    "text",
    "losses",
    "seen",
    "mean",
    "array",
    "draws",
    "torch_draws",
    "numpy_draws",
    "inner.calls",
    "late",
)


@pytest.fixture
def run(plugins, tiny, tmp_path):
    names = [*(f"Forgetful{number}" for number in range(len(NAMES))), "Steadfast", "Held", "Placed"]
    plugins("plugin_held", MODELS, models={name.lower(): f"plugin_held:{name}" for name in names})

    def run(model, **options):
        settings = [*tiny, "epochs=3"]
        rows = bench.run(model, settings=settings, metrics="psnr", out=tmp_path / "run", **options)
        return rows.set_index("metric").loc["psnr"]

    return run


@pytest.mark.parametrize(("number", "name"), list(enumerate(NAMES)))
def test_what_a_checkpoint_does_not_hold_fails_the_cell_with_its_name(number, name, run):
    row = run(f"forgetful{number}", checkpoint_every="1epochs")
    assert row["status"] == "failed"
    told = f"training changes Forgetful{number}.{name}, and a checkpoint does not hold it"
    assert told in row["reason"]


@pytest.mark.parametrize("model", ["steadfast", "held"])
def test_what_does_not_change_or_is_held_is_no_error(model, run):
    assert run(model, checkpoint_every="1epochs")["status"] == "ok"


def test_without_a_checkpoint_nothing_is_lost(run):
    assert run("forgetful0", checkpoint_every="never")["status"] == "ok"


def test_a_step_knows_its_epoch_and_its_number(run):
    assert run("placed")["status"] == "ok"
