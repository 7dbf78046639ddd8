"""Checks of the suite's own backends and models on a GPU."""

import pytest

from bench.testing import check_backend, check_model, verdict


@pytest.mark.parametrize("name", ["reference", "snntorch", "spikingjelly", "fused"])
def test_a_backend_computes_its_neuron_on_a_gpu_too(name):
    results = check_backend(name, "cuda")
    assert [each for each in results if each.outcome == "failed"] == []
    assert verdict(results) in {"exact", "within_rounding"}


@pytest.mark.parametrize("name", ["ann_vae", "esvae", "fsvae", "taid"])
def test_a_model_keeps_its_contract_on_a_gpu_too(name):
    results = check_model(name, backend="fused", device="cuda")
    assert [each for each in results if each.outcome == "failed"] == []
