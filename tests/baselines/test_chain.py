"""Chains of fused layers compute step by step what the layers do one after the other."""

from collections import OrderedDict
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from baselines.fused.cpu import kernel
from baselines.fused.linear_sequence import LinearSequence
from bench.backend import NeuronSpec, Rectangle, stateful
from bench.registry import backends

SPEC = NeuronSpec(0.25, 0.2, Rectangle(centre=0.5, width=1.0))
CHAINS = {
    "seed": st.integers(0, 2**31),
    "features": st.lists(st.integers(1, 90), min_size=2, max_size=4),
    "images": st.integers(1, 40) | st.just(300),
}


def chain(*features, backend="fused", seed=0, dtype=torch.float32):
    """Layers with random weights and statistics, whose neurons fire."""
    torch.manual_seed(seed)
    builder = backends.load(backend)()
    layers = OrderedDict()
    for i, (inputs, outputs) in enumerate(pairwise(features)):
        layer = builder.linear(inputs, outputs, SPEC, alpha=5.0)
        nn.init.uniform_(layer.norm.running_mean, -0.2, 0.2)
        nn.init.uniform_(layer.norm.running_var, 0.2, 0.6)
        nn.init.uniform_(layer.norm.bias, -0.1, 0.3)
        layers[f"linear{i}"] = layer
    return builder.sequence(layers).to(dtype).eval()


def drawn(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) < 0.4).float()


def in_parts(layers, spikes, *sizes):
    """What the layers give for parts of a sequence, their state carried from one to the next."""
    with torch.no_grad(), stateful(layers):
        return torch.cat([layers(part) for part in spikes.split(sizes)]).to(spikes.dtype)


def membranes(layers, spikes):
    with torch.no_grad(), stateful(layers):
        layers(spikes)
        return [layer.neuron.state.membrane for layer in layers]


def listen(layers):
    """The layers that are called from now on, and the handles of the hooks that note them."""
    heard = []
    return heard, [
        layer.register_forward_hook(lambda module, *_: heard.append(module)) for layer in layers
    ]


@settings(deadline=None, max_examples=30)
@given(**CHAINS, first=st.integers(1, 5), second=st.integers(1, 3))
def test_spikes_and_state_are_those_of_the_equations(seed, features, images, first, second):
    """In float64: rounding then cannot turn a spike into none."""
    spikes = drawn(seed, first + second, images, features[0]).double()
    found, expected = (
        chain(*features, backend=name, seed=seed, dtype=torch.float64)
        for name in ("fused", "reference")
    )
    assert isinstance(found, LinearSequence)
    assert not isinstance(expected, LinearSequence)
    assert torch.equal(
        in_parts(found, spikes, first, second), in_parts(expected, spikes, first, second)
    )
    pairs = zip(membranes(found, spikes), membranes(expected, spikes), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other)


@settings(deadline=None, max_examples=30)
@given(**CHAINS, steps=st.integers(1, 6))
def test_statistics_of_the_batch_are_those_of_the_equations(seed, features, images, steps):
    """In training mode without gradient, as FSVAE's prefixes run."""
    if images * steps == 1:
        images = 2
    spikes = drawn(seed, steps, images, features[0]).double()
    found, expected = (
        chain(*features, backend=name, seed=seed, dtype=torch.float64).train()
        for name in ("fused", "reference")
    )
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(found(spikes).double(), expected(spikes))
    pairs = zip(found.buffers(), expected.buffers(), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other)


def test_a_single_value_is_its_own_mean():
    layers, spikes = chain(8, 8).train(), drawn(7, 1, 1, 8)
    before = [buffer.clone() for buffer in layers.buffers()]
    with torch.no_grad():
        assert torch.equal(layers(spikes)[0, 0] > 0, layers[0].norm.bias > 0.2)
    for one, other in zip(layers.buffers(), before, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_training_mode_is_the_same_for_whoever_listens(precision):
    """But for currents that are within rounding of the threshold."""
    layers, spikes = chain(70, 100, 64, 130), drawn(8, 6, 33, 70)
    found = []
    with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision is not None):
        for listens in (False, True):
            layers.train()
            if listens:
                listen(layers)
            found.append(layers(spikes).float())
    assert (found[0] != found[1]).float().mean() < 1e-3
    assert 0.05 < found[0].mean() < 0.95


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_whoever_listens_hears_each_layer_and_changes_no_spike(precision):
    layers, spikes = chain(70, 100, 64, 130), drawn(1, 6, 33, 70)
    with torch.autocast("cpu", precision, enabled=precision is not None):
        unheard = in_parts(layers, spikes, 1, 1, 4)
        heard, handles = listen(layers)
        assert torch.equal(in_parts(layers, spikes, 1, 1, 4), unheard)
    assert heard == [*layers] * 3
    assert 0.05 < unheard.mean() < 0.95
    for handle in handles:
        handle.remove()
    in_parts(layers, spikes, 6)
    assert len(heard) == 9


def test_a_sequence_goes_on_when_someone_starts_to_listen_and_stops():
    layers, spikes = chain(40, 50, 64), drawn(2, 3, 9, 40)
    expected = in_parts(layers, spikes, 1, 1, 1)
    found = []
    with torch.no_grad(), stateful(layers):
        found.append(layers(spikes[:1]))
        _, handles = listen(layers)
        found.append(layers(spikes[1:2]))
        for handle in handles:
            handle.remove()
        found.append(layers(spikes[2:]))
    assert torch.equal(torch.cat(found).float(), expected)


def test_listening_to_all_modules_counts():
    layers, heard = chain(8, 8), []
    with nn.modules.module.register_module_forward_hook(lambda module, *_: heard.append(module)):
        in_parts(layers, drawn(3, 1, 2, 8), 1)
    assert layers[0].synapse in heard


def test_parameters_of_the_next_sequence_are_those_of_that_time():
    layers, spikes = chain(40, 64), drawn(4, 4, 9, 40)
    before = in_parts(layers, spikes, 2, 2)
    with torch.no_grad():
        layers[0].synapse.weight.neg_()
    after = in_parts(layers, spikes, 2, 2)
    listen(layers)
    assert torch.equal(after, in_parts(layers, spikes, 2, 2))
    assert not torch.equal(after, before)


def test_gradients_and_statistics_flow_as_they_do_without_a_chain():
    layers, spikes = chain(40, 50, 64), drawn(5, 4, 9, 40)
    plain = nn.Sequential(*layers)
    grown = []
    for module in (layers, plain):
        module.train().zero_grad()
        found = module(spikes.clone().requires_grad_())
        found.sum().backward()
        grown.append([found.detach() + 0, *(p.grad.clone() for p in module.parameters())])
    for one, other in zip(*grown, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("heard", [False, True])
def test_a_sequence_keeps_its_shape(heard):
    layers = chain(8, 8, 8)
    if heard:
        listen(layers)
    with torch.no_grad(), stateful(layers):
        layers(drawn(6, 1, 2, 8))
        with pytest.raises(ValueError, match=r"shape \(3, 8\) cannot continue from .* \(2, 8\)"):
            layers(drawn(6, 1, 3, 8))


@pytest.mark.full
@pytest.mark.parametrize("training", [True, False])
def test_spikes_and_state_do_not_depend_on_the_number_of_threads(training, monkeypatch, threads):
    monkeypatch.setattr(kernel, "SMALL", 0)
    spikes, found = drawn(9, 6, 33, 70), []
    for count in (1, 2):
        layers = chain(70, 100, 64, 130).train(training)
        with threads(count):
            found.append([in_parts(layers, spikes, 2, 4), *membranes(layers, spikes)])
            found[-1] += list(layers.buffers())
    assert 0.05 < found[0][0].mean() < 0.95
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
