"""Sums of the fused backend's spikes, and their gradients as the neurons take them."""

import pytest
import torch

from baselines.fused.cpu import kernel
from bench.backend import NeuronSpec, Rectangle
from bench.registry import backends

SPEC = NeuronSpec(0.25, 0.2, Rectangle(0.0, 1.0))
T, N, INPUTS, SIDE, GROUPS = 4, 3, 6, 3, 2


def results(name, channels, dtype):
    """Sums and products of a layer's spikes, and the gradients of the layer and the factors."""
    backend = backends.load(name)()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layer = backend.upsampling(INPUTS, channels, SPEC).to(dtype)
    generator = torch.Generator().manual_seed(2)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype)

    spikes = layer((draw(T, N, INPUTS, SIDE, SIDE) > 0).to(dtype))
    weights = draw(T, N, GROUPS).requires_grad_()
    maps = draw(GROUPS, *spikes.shape[2:]).requires_grad_()
    sums, products = backend.weighted_sums(spikes, weights), backend.inner_products(spikes, maps)
    loss = (sums * draw(*sums.shape)).sum() + (products * draw(*products.shape)).sum()
    gradients = torch.autograd.grad(loss, [weights, maps, *layer.parameters()])
    with torch.no_grad():
        silent = layer.eval()((draw(T, N, INPUTS, SIDE, SIDE) > 0).to(dtype))
        evaluated = backend.weighted_sums(silent, weights), backend.inner_products(silent, maps)
    return [sums.detach(), products.detach(), *gradients, *evaluated]


# Features of an image with and without a remainder beyond whole vectors.
@pytest.mark.parametrize("channels", [8, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_they_are_those_of_plain_pytorch(channels, dtype):
    found, expected = (results(name, channels, dtype) for name in ("fused", "reference"))
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    for value, wanted in zip(found, expected, strict=True):
        scale = wanted.abs().max()
        # The bias before tdBN has no gradient but rounding.
        torch.testing.assert_close(value, wanted, rtol=0, atol=tolerance * max(1, scale.item()))


@pytest.mark.full
def test_they_do_not_depend_on_the_number_of_threads(monkeypatch, threads):
    monkeypatch.setattr(kernel, "SMALL", 0)
    found = []
    for count in (1, 2):
        with threads(count):
            found.append(results("fused", 8, torch.float32))
    # PyTorch computes the gradient of the synapses' weight, in parts for each thread.
    weight_gradients = [values.pop(4) for values in found]
    torch.testing.assert_close(*weight_gradients)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
