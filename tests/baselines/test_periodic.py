"""Neurons that fire with a period, and synapses that use it, against the plain computation."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from baselines.fused.cpu.periodic import PeriodicSpikes, PooledSpikes
from baselines.fused.neuron import FusedNeuron
from baselines.fused.per_step import fastest
from baselines.gan_layers import PerStepBatchNorm, PerStepLayer
from bench.backend import Arctangent, NeuronSpec
from bench.registry import backends

SPEC = NeuronSpec(0.5, 1.0, Arctangent(2.0), reset_gradient=False)
SEEDS = st.integers(0, 10**6)


@pytest.fixture(autouse=True)
def _double(double_precision):
    """All numbers are float64."""


@given(st.integers(2, 20), SEEDS)
def test_a_constant_current_makes_a_neuron_fire_with_a_period(time_steps, seed):
    torch.manual_seed(seed)
    currents = torch.rand(1, 2, 3, 4, 4) * 1.5
    spikes = FusedNeuron(SPEC, in_bytes=True, periodic=True)(currents, time_steps)
    expected = backends.load("reference")().neuron(SPEC)(currents, time_steps)
    assert isinstance(spikes, PeriodicSpikes)
    assert torch.equal(spikes.materialise(), expected)
    assert torch.equal(spikes.flatten(0, 1).materialise(), expected.flatten(0, 1))


def pair(synapse, features, *, normed=True, pooled=False):
    """Return a layer of the reference backend, and its fused form with a copy of the weights."""
    built = []
    for name in ("reference", "fused"):
        torch.manual_seed(0)
        backend = backends.load(name)()
        norm = PerStepBatchNorm(features) if normed else None
        layer = PerStepLayer(synapse(), backend.neuron(SPEC), norm, pooled)
        if norm is not None:
            torch.nn.init.uniform_(norm.weight, 0.5, 2)
            torch.nn.init.uniform_(norm.bias, 0, 1)
        built.append(backend.fastest(layer))
    return built


def assert_equal_passes(first, second, inputs, time_steps):
    """Check outputs, gradients and running statistics of two layers after another two."""
    results = []
    for layers in zip(first, second, strict=True):
        leaf = inputs.clone().requires_grad_()
        output = layers[1](layers[0](leaf, time_steps))
        draws = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
        (output * draws).sum().backward()
        tensors = {f"{i}.{k}": v for i, m in enumerate(layers) for k, v in m.state_dict().items()}
        gradients = [p.grad for m in layers for p in m.parameters()]
        results.append((output.detach(), leaf.grad, gradients, tensors))
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("time_steps", [1, 2, 16])
@pytest.mark.parametrize("outputs", [64, 10])
def test_linear_layers_of_periodic_neurons_equal_the_reference(time_steps, outputs):
    first = pair(lambda: torch.nn.Linear(5, 40), 40)
    second = pair(lambda: torch.nn.Linear(40, outputs), outputs)
    assert_equal_passes(first, second, torch.randn(1, 6, 5), time_steps)


@pytest.mark.parametrize("time_steps", [2, 16])
@pytest.mark.parametrize(("channels", "outputs"), [(3, 32), (32, 32), (32, 5)])
@pytest.mark.parametrize("size", [10, 11])
def test_convolutions_of_pooled_periodic_neurons_equal_the_reference(
    time_steps, channels, outputs, size
):
    first = pair(lambda: torch.nn.Conv2d(1, channels, 3), channels, pooled=True)
    second = pair(lambda: torch.nn.Conv2d(channels, outputs, 3), outputs, pooled=size % 2 == 1)
    assert_equal_passes(first, second, torch.randn(1, 4, 1, size, size), time_steps)


@pytest.mark.parametrize("outputs", [32, 1])
def test_transposed_convolutions_equal_the_reference(outputs):
    first = pair(lambda: torch.nn.Conv2d(1, 8, 3), 8)
    second = pair(lambda: torch.nn.ConvTranspose2d(8, outputs, 4, 2, 1), outputs)
    assert_equal_passes(first, second, torch.randn(1, 4, 1, 8, 8), 3)


def test_pooled_periodic_spikes_are_averages():
    periods = torch.randint(0, 5, (2, 3, 4, 6), dtype=torch.uint8)
    spikes = PeriodicSpikes(periods, 4, torch.float64)
    expected = F.avg_pool2d(spikes.materialise().flatten(0, 1), 2)
    pooled = PooledSpikes(spikes)
    assert torch.equal(pooled.flatten(0, 1).materialise(), expected)
    assert torch.equal(pooled.materialise().flatten(0, 1), expected)


def test_other_layers_are_left_as_they_are():
    layer = torch.nn.Conv2d(2, 3, 3, padding=1)
    assert fastest(layer) is layer
