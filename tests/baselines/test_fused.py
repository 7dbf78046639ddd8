"""The fused backend against the reference, layer by layer and in each precision."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from baselines.fused.cpu import kernel
from baselines.fused.cpu.lazy_tensors import ByteSpikes
from baselines.fused.synapses import Downsampling, Upsampling
from bench.backend import (
    Arctangent,
    NeuronSpec,
    Rectangle,
    TimeDependentBatchNorm,
    Triangle,
    stateful,
)
from bench.registry import backends

SPEC = NeuronSpec(0.25, 0.2, Rectangle(centre=0.0, width=1.0))
LAYERS = {
    "convolution": (lambda backend: backend.downsampling(6, 10, SPEC), (6, 8, 8)),
    "transposed convolution": (lambda backend: backend.upsampling(6, 10, SPEC), (6, 4, 4)),
    "linear": (lambda backend: backend.linear(37, 23, SPEC), (37,)),
    "wide linear": (lambda backend: backend.linear(37, 1500, SPEC), (37,)),
    "large linear": (lambda backend: backend.linear(1030, 1050, SPEC), (1030,)),
}


def layers_of(build):
    """The same layer on the reference and on the fused backend."""
    built = []
    for name in ("reference", "fused"):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            layer = build(backends.load(name)())
            layer.norm.weight.data.uniform_(1.0, 2.0)
            layer.norm.running_var.uniform_(0.1, 0.5)
            for tensor in (layer.norm.bias.data, layer.norm.running_mean):
                tensor.uniform_(-0.1, 0.2)
        built.append(layer)
    return built


def spike_trains(time_steps, images, shape, seed=4):
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand((time_steps, images, *shape), generator=generator)
    return (uniform < 0.3).to(torch.get_default_dtype())


def gradients(layer, inputs, weights):
    outputs = layer(inputs)
    return torch.autograd.grad((outputs * weights).sum(), [inputs, *layer.parameters()])


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("images", [1, 3, 64])
def test_float32_spikes_are_the_reference_ones_up_to_rounding(name, training, images):
    build, shape = LAYERS[name]
    reference, fused = layers_of(build)
    inputs = spike_trains(5, images, shape)
    expected = reference.train(training)(inputs)
    spikes = fused.train(training)(inputs)
    assert 0.02 < expected.mean() < 0.98
    assert spikes.dtype == torch.float32
    assert (spikes != expected).float().mean() < 2e-5
    for buffer, other in zip(fused.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(buffer, other)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("images", [7, 60, 240])
@pytest.mark.parametrize("in_bytes", [True, False])
def test_float64_spikes_and_gradients_are_the_reference_ones(name, training, images, in_bytes):
    """Few images and many take different ways, and so do spikes that are kept in bytes."""
    build, shape = LAYERS[name]
    reference, fused = layers_of(build)
    inputs = spike_trains(5, images, shape).requires_grad_()
    given = inputs
    if in_bytes:
        given = ByteSpikes(inputs.detach().to(torch.uint8), inputs.dtype).requires_grad_()
    weights = torch.randn_like(reference.train(training)(inputs))
    assert torch.equal(fused.train(training)(given), reference(inputs))
    expected = gradients(reference, inputs, weights)
    torch.testing.assert_close(gradients(fused, given, weights), expected)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("training", [True, False])
def test_direct_coding_adds_up_the_gradients_of_equal_steps(training):
    reference, fused = layers_of(lambda backend: backend.direct_coding(3, 6, SPEC, 5))
    images = torch.rand((4, 3, 8, 8)).requires_grad_()
    weights = torch.randn_like(reference.train(training)(images))
    assert torch.equal(fused.train(training)(images), reference(images))
    expected = gradients(reference, images, weights)
    torch.testing.assert_close(gradients(fused, images, weights), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_bfloat16_is_rounded_at_the_synapses_only(name):
    """Norm and neurons compute in float32 from what the synapses round."""
    build, shape = LAYERS[name]
    layer = layers_of(build)[1].eval()
    inputs = spike_trains(5, 3, shape)
    with torch.autocast("cpu", torch.bfloat16):
        spikes = layer(inputs)
        currents = layer.synapse(inputs.flatten(0, 1))
    assert currents.dtype == torch.bfloat16
    assert spikes.dtype == torch.bfloat16
    expected = layer.neuron(layer.norm(currents.float()).unflatten(0, (5, 3)))
    assert (spikes != expected).float().mean() < 2e-4
    assert set(spikes.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("images", [3, 300])
def test_bfloat16_spikes_of_bytes_are_rounded_where_those_of_numbers_are(name, images):
    build, shape = LAYERS[name]
    layer = layers_of(build)[1].eval()
    inputs = spike_trains(5, images, shape)
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(inputs)
        with torch.no_grad():
            spikes = layer(inputs.to(torch.uint8))
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            precise = layer(inputs.to(torch.uint8))
    assert spikes.dtype == torch.uint8
    assert (spikes != expected).float().mean() < 2e-4
    if images == 300:
        assert (spikes != precise).any()


@pytest.mark.parametrize("name", LAYERS)
def test_bfloat16_gradients_are_the_float32_ones_up_to_their_rounding(name):
    build, shape = LAYERS[name]
    layer = layers_of(build)[1].train()
    inputs = spike_trains(5, 16, shape).requires_grad_()
    with torch.no_grad():
        weights = torch.rand(layer(inputs).shape)
    expected = gradients(layer, inputs, weights)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(layer, inputs, weights)
    for gradient, wanted in zip(found, expected, strict=True):
        if wanted.abs().max() > 1e-3:
            assert nn.functional.cosine_similarity(gradient.flatten(), wanted.flatten(), 0) > 0.99


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("images", [1, 3, 300])
def test_float32_spikes_of_bytes_are_the_reference_ones_up_to_rounding(name, training, images):
    """Few images and many take different ways; no gradient flows through bytes."""
    build, shape = LAYERS[name]
    reference, fused = layers_of(build)
    inputs = spike_trains(5, images, shape)
    with torch.no_grad():
        expected = reference.train(training)(inputs)
        spikes = fused.train(training)(inputs.to(torch.uint8))
    assert 0.02 < expected.mean() < 0.98
    assert spikes.dtype == torch.uint8
    assert (spikes != expected).float().mean() < 2e-5
    for buffer, other in zip(fused.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(buffer, other)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("images", [7, 300])
def test_float64_spikes_of_bytes_are_the_reference_ones_step_by_step_too(name, images):
    build, shape = LAYERS[name]
    reference, fused = (layer.eval() for layer in layers_of(build))
    inputs = spike_trains(5, images, shape)
    spikes = inputs.to(torch.uint8)
    with torch.no_grad(), stateful(fused):
        expected = reference(inputs)
        parts = torch.cat([fused(spikes[:1]), fused(spikes[1:3]), fused(spikes[3:])])
    assert torch.equal(parts, expected.to(torch.uint8))


@pytest.mark.parametrize("name", LAYERS)
def test_steps_with_carried_state_are_one_pass(name):
    build, shape = LAYERS[name]
    layer = layers_of(build)[1].eval()
    inputs = spike_trains(6, 5, shape)
    with stateful(layer):
        steps = torch.cat([layer(step[None]) for step in inputs])
    assert (steps != layer(inputs)).float().mean() < 2e-5


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("name", LAYERS)
def test_a_sequence_starts_with_the_parameters_and_statistics_of_its_time(name):
    """While one goes on, what the norm does is computed once."""
    build, shape = LAYERS[name]
    layers = [layer.eval() for layer in layers_of(build)]
    inputs = spike_trains(4, 300, shape)
    changes = [
        lambda norm: norm.weight.data.mul_(1.5),
        lambda norm: norm.running_mean.sub_(0.05),
        lambda norm: norm.load_state_dict({k: v * 0.9 for k, v in norm.state_dict().items()}),
    ]
    with torch.no_grad():
        for change in changes:
            found = []
            for layer in layers:
                change(layer.norm)
                with stateful(layer):
                    found.append(torch.cat([layer(step[None]) for step in inputs]))
            assert 0.02 < found[0].mean() < 0.98
            assert torch.equal(*found)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("counted", [slice(3, 6), slice(0, 3), slice(0, 6)])
def test_gradients_flow_through_carried_state(counted):
    """Also to spikes that nothing else depends on, and from a potential that nothing reads."""
    build, shape = LAYERS["linear"]
    inputs = spike_trains(6, 5, shape).requires_grad_()
    found = []
    for layer in layers_of(build):
        with stateful(layer.eval()):
            spikes = torch.cat([layer(inputs[:3]), layer(inputs[3:])])
        found.append(torch.autograd.grad(spikes[counted].sum(), [inputs, *layer.parameters()]))
    torch.testing.assert_close(found[1], found[0])


SURROGATES = st.one_of(
    st.builds(Rectangle, st.floats(-0.5, 0.5), st.floats(0.2, 2)),
    st.builds(Triangle, st.floats(0.2, 2)),
    st.builds(Arctangent, st.floats(0.5, 4)),
)
SPECS = st.builds(
    NeuronSpec, st.floats(0.05, 0.95), st.floats(0.1, 1), SURROGATES, st.booleans(), st.booleans()
)
CALLS = st.fixed_dictionaries(
    {
        "shape": st.sampled_from([(3, 37), (2, 5, 3, 4), (2, 64, 1, 1)]),
        "repeats": st.sampled_from([1, 6]),
        "normalised": st.sampled_from([None, "training", "evaluation"]),
        "at_rest": st.booleans(),
        "seed": st.integers(0, 2**31),
    }
)


@pytest.mark.usefixtures("double_precision")
@given(spec=SPECS, call=CALLS)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_every_neuron_has_the_reference_gradients_with_and_without_norm(spec, call):
    """Also from a potential that the neurons start from, and for currents that are repeated."""
    generator = torch.Generator().manual_seed(call["seed"])

    def draws(*shape):
        return torch.randn(shape, generator=generator) * spec.threshold

    time_steps = 1 if call["repeats"] > 1 else 6
    currents = draws(time_steps, *call["shape"]).requires_grad_()
    membrane = None if call["at_rest"] else draws(*call["shape"]).requires_grad_()
    norm = TimeDependentBatchNorm(call["shape"][1], spec.threshold)
    norm.weight.data, norm.bias.data = draws(2, len(norm.bias)).add(spec.threshold)
    norm.running_var.fill_(spec.threshold**2).requires_grad_(False)
    norm.train(call["normalised"] == "training")
    weights, last = draws(6, *call["shape"]), draws(*call["shape"])
    found = []
    for name in ("reference", "fused"):
        neuron = backends.load(name)().neuron(spec)
        with stateful(neuron):
            neuron.state.membrane = membrane
            if call["normalised"] is None:
                spikes = neuron(currents, call["repeats"])
            elif name == "fused":
                spikes = neuron(currents, call["repeats"], norm=copy.deepcopy(norm))
            else:
                normed = norm(currents.flatten(0, 1), call["repeats"]).view(currents.shape)
                spikes = neuron(normed, call["repeats"])
            total = (spikes * weights).sum() + (neuron.state.membrane * last).sum()
        inputs = [currents, *([] if membrane is None else [membrane])]
        found.append([spikes, *torch.autograd.grad(total, inputs)])
    assert torch.equal(found[1][0], found[0][0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-9)


DETACHED = {
    type(surrogate).__name__: NeuronSpec(0.5, 0.2, surrogate, reset_gradient=False)
    for surrogate in (Rectangle(0.1, 0.7), Triangle(0.6), Arctangent(2.0))
}


@pytest.mark.parametrize("name", DETACHED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("normalised", [True, False])
def test_gradients_in_each_precision_are_those_in_float64(name, dtype, normalised):
    neuron = backends.load("fused")().neuron(DETACHED[name])
    generator = torch.Generator().manual_seed(11)
    currents = (torch.randn((6, 3, 40, 4, 4), generator=generator) * 0.3).to(dtype)
    weights = torch.randn(currents.shape, generator=generator)
    found = []
    for precision in (dtype, torch.float64):
        # With statistics that are exact, currents differ by what normalising rounds.
        norm = TimeDependentBatchNorm(40, 0.5).eval()
        given = currents.to(precision).requires_grad_()
        if precision == torch.float64:
            norm.double()
        spikes = neuron(given, norm=norm) if normalised else neuron(given)
        (gradient,) = torch.autograd.grad((spikes * weights.to(spikes)).sum(), given)
        assert gradient.dtype == precision
        found.append((spikes.double(), gradient.double()))
    (spikes, gradient), (wanted_spikes, wanted) = found
    same = (spikes == wanted_spikes).all(0)
    assert same.float().mean() > 0.999
    tolerance = 0.02 if dtype == torch.bfloat16 else 1e-4
    off = (gradient - wanted).abs() > tolerance * (1 + wanted.abs())
    # Neurons within rounding of the edge of a rectangle are few.
    assert off.any(0)[same].float().mean() < 1e-3
    assert wanted.abs().mean() > 0.1


@pytest.mark.parametrize("training", [True, False])
def test_repeated_spikes_drive_repeated_neurons(training):
    """Currents that look-ups compute when they are needed stand for equal steps too."""
    _, layer = layers_of(LAYERS["convolution"][0])
    layer.train(training)
    spikes = spike_trains(1, 300, (6, 8, 8)).to(torch.uint8)
    with torch.no_grad():
        expected = copy.deepcopy(layer)(spikes.expand(5, *spikes.shape[1:]).contiguous())
        currents = layer.synapse(spikes[0]).unflatten(0, (1, 300))
        found = layer.neuron(currents, 5, norm=layer.norm)
    assert found.shape == expected.shape
    assert 0.02 < expected.float().mean() < 0.98
    assert (found != expected).float().mean() < 2e-5


@pytest.mark.parametrize("kind", [Downsampling, Upsampling])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_channels_last_convolutions_have_pytorch_s_values_and_gradients(kind, dtype):
    plain = kind(5, 8).to(dtype)
    laid_out = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    images = torch.randn((6, 5, 8, 8), dtype=dtype, requires_grad=True)
    weights = torch.randn_like(plain(images))
    tolerance = {} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(laid_out(images), plain(images), **tolerance)
    found, expected = (gradients(layer, images, weights) for layer in (laid_out, plain))
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else tolerance
    for gradient, wanted in zip(found, expected, strict=True):
        scale = wanted.abs().max()
        torch.testing.assert_close(gradient / scale, wanted / scale, **tolerance)


@pytest.mark.parametrize("kind", [Downsampling, Upsampling])
def test_channels_last_convolutions_refuse_another_precision_as_pytorch_does(kind):
    layer = kind(5, 8).to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match=r"(?i)double"):
        layer(torch.randn((6, 5, 8, 8), dtype=torch.float64))


@pytest.mark.full
@pytest.mark.parametrize("name", LAYERS)
def test_results_do_not_depend_on_the_number_of_threads(name, monkeypatch, threads):
    """Also in kernels that have another variant for several threads."""
    monkeypatch.setattr(kernel, "SMALL", 0)
    found = []
    for count in (1, 2):
        with threads(count):
            found.append(all_results(LAYERS[name]))
    assert len(found[0]) == 11
    assert 0.02 < found[0][4].float().mean() < 0.98
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def all_results(case):
    """Gradients, spikes, potentials and statistics, but for the gradient that PyTorch computes."""
    build, shape = case
    layer = layers_of(build)[1].train()
    spikes = spike_trains(5, 60, shape).to(torch.uint8)
    leaf = ByteSpikes(spikes, torch.float32).requires_grad_()
    weights = torch.ones((5, 60, *layer(leaf).shape[2:]))
    results = list(gradients(layer, leaf, weights)[1:])
    with torch.no_grad():
        results.append(layer(spikes) + 0)
        with stateful(layer.eval()):
            results += [layer(spikes) + 0, layer.neuron.state.membrane, layer(spikes) + 0]
            results.append(layer.neuron.state.membrane)
    return results + list(layer.buffers())


def test_a_device_without_a_kernel_is_refused():
    with pytest.raises(RuntimeError, match="not on xpu"):
        backends.load("fused")().implementation(torch.device("xpu"))
