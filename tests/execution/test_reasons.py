"""What a row says of a model that fails: enough to mend it."""

import pytest
from tiny import TINY

import bench

MODELS = '''
import torch

from bench import GenerativeModel
from toys import Steady


class Bare(GenerativeModel):
    """Neither parameters nor buffers."""

    version = "1"
    capabilities = frozenset({"sample"})

    def training_step(self, images, step):
        return {"loss": 1.0}

    def sample(self, n, generator):
        return torch.zeros(n, *self.image_shape)


class Buffered(Bare):
    """No parameters, but a buffer."""

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.register_buffer("seen", torch.zeros(()))


class Silent(Steady):
    """An exception without text."""

    def training_step(self, images, step):
        raise NotImplementedError


class Lossless(Steady):
    """A step without a loss."""

    def training_step(self, images, step):
        return {}
'''
RAISED = MODELS[: MODELS.index("raise NotImplementedError")].count("\n") + 1


@pytest.fixture
def rows(plugins, tmp_path):
    def rows(name):
        plugins("plugin_odd", MODELS, models={"odd": f"plugin_odd:{name}"})
        rows = bench.run(models=["odd"], settings=TINY, metrics="fad,psnr", out=tmp_path / "run")
        return rows[rows["kind"] == "model"]

    return rows


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Bare", "TypeError: Bare has neither parameters nor buffers, which tell its device"),
        (
            "Silent",
            f"NotImplementedError without a message, raised in plugin_odd.py, line {RAISED}",
        ),
        ("Lossless", "training_step of Lossless returned no losses"),
    ],
)
def test_the_reason_says_what_to_mend(name, told, rows):
    found = rows(name).set_index("metric")
    assert found.loc["fad", "status"] == "failed"
    assert told in found.loc["fad", "reason"]


def test_a_model_without_parameters_can_run(rows):
    found = rows("Buffered").set_index("metric")
    assert found.loc["fad", "status"] == "ok"
    assert found.loc["psnr", "status"] == "not_applicable"
