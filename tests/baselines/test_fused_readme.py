"""The NumPy version in the README of the fused backend equals the compiled kernels."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import baselines.fused
from baselines.fused.cpu import lookup

README = Path(baselines.fused.__file__).with_name("README.md")


@pytest.fixture
def version():
    """The functions of the NumPy version."""
    names = {}
    exec(numpy_version(), names)
    return names


def drawn(seed, weight_shape, *spike_shape):
    generator = np.random.default_rng(seed)
    spikes = generator.integers(0, 2, spike_shape, np.uint8)
    return spikes, generator.normal(size=weight_shape), generator.normal(size=weight_shape[0])


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 4, 1), (7, 36, 5), (300, 64, 33)])
def test_numpy_version_equals_the_kernel_of_linear_layers(version, rows, inputs, outputs):
    spikes, weight, bias = drawn(0, (outputs, inputs), rows, inputs)
    expected = lookup.connect(*map(torch.from_numpy, (spikes, weight, bias)))
    assert expected.dtype == torch.float64
    np.testing.assert_allclose(bias + version["look_up"](spikes, weight), expected, 0, atol=1e-12)
    np.testing.assert_allclose(spikes @ weight.T + bias, expected, 0, atol=1e-12)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 4, 1), (20, 36, 33)])
def test_numpy_version_equals_the_kernel_of_convolutions(version, rows, inputs, outputs):
    spikes, weight, bias = drawn(1, (outputs, inputs, 3, 3), rows, 6, 4, inputs)
    by_channel = torch.from_numpy(spikes).movedim(-1, 1)
    parameters = torch.from_numpy(weight), torch.from_numpy(bias)
    currents = lookup.convolve(by_channel, *parameters, transposed=False)
    expected = currents.materialise().movedim(1, -1)
    np.testing.assert_allclose(version["convolve"](spikes, weight, bias), expected, 0, atol=1e-12)
    dense = F.conv2d(by_channel.double(), *parameters, stride=2, padding=1).movedim(1, -1)
    np.testing.assert_allclose(dense, expected, 0, atol=1e-12)


def numpy_version():
    (block,) = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    return block
