"""A third party's backend, typed as docs/neuron.md shows it."""

import re
from pathlib import Path

import pytest
from tiny import SLOW_METRICS, TINY

import bench

DOCS = Path(__file__).parents[1] / "docs" / "neuron.md"
DECLINING = """
from bench.backend import SpikingBackend, UnsupportedNeuronError


class Declining(SpikingBackend):
    def neuron(self, spec):
        raise UnsupportedNeuronError(f"no decay of {spec.decay} here")
"""
ELSEWHERE = """
from baselines.backends.reference import ReferenceBackend


class Elsewhere(ReferenceBackend):
    def implementation(self, device):
        raise RuntimeError(f"only on the device xpu, not on {device.type}")
"""


@pytest.mark.full
def test_a_neuron_of_fifteen_lines_is_a_backend(plugins, tmp_path):
    code = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    (source,) = (block for block in code if "SpikingBackend" in block)
    assert len([line for line in source.splitlines() if line]) <= 15
    plugins("plugin_neuron", source, backends={"mine": "plugin_neuron:MyBackend"})
    asked = {"settings": TINY, "skip": SLOW_METRICS, "out": tmp_path / "run"}
    for model in ("esvae", "fsvae"):
        rows = bench.run(model, backends="reference,mine", **asked)
        rows = rows[rows["unit"].notna() & (rows["status"] == "ok") & (rows["model"] == model)]
        measured = rows[~rows["metric"].str.contains("throughput|peak_memory")]
        values = {name: list(part["value"]) for name, part in measured.groupby("backend")}
        assert values["mine"] == values["reference"]
        assert len(values["mine"]) > 50


def test_a_backend_that_declines_the_neuron_is_skipped_with_its_reason(plugins, tmp_path):
    plugins("plugin_declining", DECLINING, backends={"declining": "plugin_declining:Declining"})
    asked = {"settings": TINY, "metrics": "psnr", "out": tmp_path / "run"}
    rows = bench.run("esvae", backends="declining", **asked)
    rows = rows[rows["status"] != "not_asked"]
    assert set(rows["status"]) == {"skipped"}
    (reason,) = set(rows["reason"])
    assert reason.startswith("no decay of 0.25 here: ")
    assert "--backends reference" in reason


def test_a_backend_without_the_device_is_skipped_and_the_other_models_run(plugins, tmp_path):
    plugins("plugin_elsewhere", ELSEWHERE, backends={"elsewhere": "plugin_elsewhere:Elsewhere"})
    asked = {"settings": TINY, "metrics": "reconstruction_loss", "out": tmp_path / "run"}
    rows = bench.run("ann_vae,esvae", backends="elsewhere", **asked)
    asked_for = rows[rows["status"] != "not_asked"].set_index("model")
    assert asked_for["status"].to_dict() == {"ann_vae": "ok", "esvae": "skipped"}
    reason = asked_for.loc["esvae", "reason"]
    assert "the backend elsewhere cannot run here (only on the device xpu, not on cpu)" in reason
    assert "--backends reference" in reason
