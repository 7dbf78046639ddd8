"""Precision as part of the protocol."""

import contextlib

import pytest
import torch
from tiny import SLOW_METRICS

import bench
from bench.system.devices import tf32

PLAIN = """
import torch
from bench import GenerativeModel

class Plain(GenerativeModel):
    version = "1"
    capabilities = frozenset({"sample"})

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.mean = torch.nn.Parameter(torch.zeros(image_shape))

    def training_step(self, images, step):
        return {"loss": 1.0}

    def sample(self, n, generator):
        return torch.tanh(self.mean).expand(n, *self.image_shape)
"""


@pytest.fixture
def run(tmp_path, tiny):
    def run(*settings, **asked):
        out = tmp_path / "run"
        rows = bench.run(settings=[*tiny, *settings], skip=SLOW_METRICS, out=out, **asked)
        return rows[rows["status"] != "not_asked"]

    return run


@pytest.mark.full
@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_bfloat16_runs_whole_and_is_another_protocol(run, backend):
    asked = {"models": ["esvae", "fsvae"], "backends": [backend]}
    rows = run("precision=bfloat16", **asked)
    models = rows[rows["kind"] == "model"]
    assert (models["status"] != "failed").all()
    losses = models[(models["metric"] == "reconstruction_loss")]
    assert losses["value"].between(0, 4).all()
    assert len(losses) == 2
    other = run("precision=float32", **asked)
    assert set(models["protocol_hash"]).isdisjoint(other["protocol_hash"])


def test_a_model_that_does_not_heed_a_precision_is_skipped_with_the_reason(run, plugins):
    plugins("plugin_plain", PLAIN, models={"plain": "plugin_plain:Plain"})
    rows = run("precision=bfloat16", models=["plain", "ann_vae"])
    rows = rows[rows["model"] == "plain"]
    assert set(rows["status"]) == {"skipped"}
    assert rows["reason"].str.contains("it computes in float32 or tf32, not in bfloat16").all()
    with pytest.raises(bench.BenchError, match="computes in float32"):
        run("precision=bfloat16", models=["plain"])
    rows = run("precision=float32", models=["plain"])
    assert "ok" in set(rows[rows["model"] == "plain"]["status"])


def test_an_unknown_precision_is_refused(bench_cli):
    code, _, err = bench_cli("run", "--set", "precision=float16", "--dry-run")
    assert code == 2
    assert "precision" in err
    assert "'float32', 'tf32' or 'bfloat16'" in err


def test_tf32_is_skipped_on_a_cpu_with_the_reason(run):
    rows = run("precision=tf32", models=["ann_vae", "esvae"], backends=["fused"], device="cpu")
    models = rows[rows["kind"] == "model"]
    assert set(models["model"]) == {"ann_vae", "esvae"}
    assert set(models["status"]) == {"skipped"}
    reason = (
        "precision tf32 needs a CUDA GPU of compute capability 8.0 or more, and the device is cpu"
    )
    assert models["reason"].str.startswith(reason).all()
    assert set(models["protocol"]) == {rows["protocol"].iloc[0]}
    assert "precision=tf32" in rows["protocol"].iloc[0]


def test_tf32_is_switched_for_convolutions_and_products_and_back():
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    with tf32(True):
        assert (convolutions.allow_tf32, products.allow_tf32) == (True, True)
        with contextlib.suppress(ZeroDivisionError), tf32(False):
            assert (convolutions.allow_tf32, products.allow_tf32) == (False, False)
            raise ZeroDivisionError
        assert (convolutions.allow_tf32, products.allow_tf32) == (True, True)
    assert (convolutions.allow_tf32, products.allow_tf32) == before
