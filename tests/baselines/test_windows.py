"""Transposed convolutions of spikes to few channels, against PyTorch's."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.fused.cpu import kernel
from baselines.fused.cpu.lazy_tensors import ByteSpikes
from baselines.fused.synapses import PlainUpsampling


def drawn(seed, channels, outputs, size, dtype=torch.float64):
    """A layer, spikes ``(R, C, H, W)`` and a gradient of its currents."""
    images, height, width = size
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = PlainUpsampling(channels, outputs, 4, stride=2, padding=1).to(dtype)
        fired = torch.randint(0, 2, (images, channels, height, width), dtype=torch.uint8)
        gradient = torch.randn(images, outputs, 2 * height, 2 * width, dtype=dtype)
    return layer, fired, gradient


def results(function, spikes, layer, gradient):
    """Currents, and the gradients of spikes, weight and bias."""
    currents = function(spikes)
    gradients = torch.autograd.grad(currents, [spikes, layer.weight, layer.bias], gradient)
    return currents.detach(), *gradients


sizes = st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.sampled_from([1, 2, 3]), sizes)
def test_currents_and_gradients_are_those_of_pytorch(seed, channels, outputs, size):
    layer, fired, gradient = drawn(seed, channels, outputs, size)
    spikes = ByteSpikes(fired, torch.float64).requires_grad_()
    numbers = fired.double().requires_grad_()

    def dense(inputs):
        return F.conv_transpose2d(inputs, layer.weight, layer.bias, 2, 1)

    found = results(layer, spikes, layer, gradient)
    expected = results(dense, numbers, layer, gradient)
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=0, atol=1e-11)
    torch.testing.assert_close(layer(fired), expected[0], rtol=0, atol=1e-11)


@pytest.mark.full
def test_they_do_not_depend_on_the_number_of_threads(monkeypatch, threads):
    monkeypatch.setattr(kernel, "SMALL", 0)
    layer, fired, gradient = drawn(0, 40, 1, (70, 5, 6), torch.float32)
    found = []
    for count in (1, 2):
        with threads(count):
            spikes = ByteSpikes(fired, torch.float32).requires_grad_()
            found.append(results(layer, spikes, layer, gradient))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
