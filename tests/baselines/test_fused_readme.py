"""The NumPy version in the README of the fused backend equals the compiled kernel."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import baselines.fused
from baselines.fused.cpu import lookup

README = Path(baselines.fused.__file__).with_name("README.md")


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 4, 1), (7, 36, 5), (300, 64, 33)])
def test_numpy_version_equals_kernel(rows, inputs, outputs):
    names = {}
    exec(numpy_version(), names)
    generator = np.random.default_rng(0)
    spikes = generator.integers(0, 2, (rows, inputs), np.uint8)
    weight, bias = generator.normal(size=(outputs, inputs)), generator.normal(size=outputs)
    expected = lookup.connect(*map(torch.from_numpy, (spikes, weight, bias)))
    assert expected.dtype == torch.float64
    np.testing.assert_allclose(names["connect"](spikes, weight, bias), expected, 0, atol=1e-12)
    np.testing.assert_allclose(spikes @ weight.T + bias, expected, 0, atol=1e-12)


def numpy_version():
    (block,) = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    return block
