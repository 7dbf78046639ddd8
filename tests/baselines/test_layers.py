import naive
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.divergences import postsynaptic_potential
from bench.backend import (
    MembraneReadout,
    NeuronSpec,
    Rectangle,
    TimeDependentBatchNorm,
    readout_weights,
    to_image,
)

SPEC = NeuronSpec(0.25, 0.2, Rectangle(centre=0.0, width=1.0))
NEURON = naive.Neuron(centre=0.0, width=1.0)
SCALE = 0.2
SHAPES = [(4, 3, 5, 6, 6), (1, 2, 3, 4, 4), (5, 3, 7)]

SYNAPSES = {
    "convolution": (
        lambda backend: backend.downsampling(5, 6, SPEC),
        naive.convolution,
        (4, 3, 5, 8, 8),
    ),
    "transposed": (
        lambda backend: backend.upsampling(5, 6, SPEC),
        naive.transposed_convolution,
        (4, 3, 5, 4, 4),
    ),
    "linear": (lambda backend: backend.linear(40, 30, SPEC), naive.linear, (4, 3, 40)),
}


def draw(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spike_train(shape, seed=0, rate=0.3):
    uniform = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return (uniform < rate).to(uniform.dtype)


def perturbed_norm(features, scale=SCALE, seed=0):
    norm = TimeDependentBatchNorm(features, scale)
    with torch.no_grad():
        norm.weight.copy_(draw(features, seed).abs() + 0.5)
        norm.bias.copy_(draw(features, seed + 1) * 0.1)
    norm.running_mean.copy_(draw(features, seed + 2) * 0.2)
    norm.running_var.copy_(draw(features, seed + 3).abs() * 0.2 + 0.05)
    return norm


def naive_network(layer, training=True):
    named = {f"layer.{name}": value for name, value in layer.state_dict().items()}
    return naive.SpikingNetwork(named, training, NEURON, time_steps=4)


def spiking_layer(backend, build, features):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layer = build(backend)
    layer.norm.load_state_dict(perturbed_norm(features).state_dict())
    return layer


def gradients(outputs, weights, layer, inputs):
    tensors = [inputs, *layer.parameters()]
    return torch.autograd.grad((outputs * weights).sum(), tensors)


def assert_same_statistics(norm, network, name):
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(norm.running_mean, network.weights[f"{name}.running_mean"], **close)
    torch.testing.assert_close(norm.running_var, network.weights[f"{name}.running_var"], **close)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_tdbn_is_the_naive_one_with_its_statistics_and_gradients(training, shape, alpha):
    norm = perturbed_norm(shape[2], alpha * 0.2).train(training)
    network = naive.Network(
        {f"norm.{name}": value for name, value in norm.state_dict().items()}, training
    )
    for seed in (1, 2):
        values = (draw(shape, seed) * 3 + 1).requires_grad_()
        weights = draw(shape, seed + 10)
        output = norm(values.flatten(0, 1)).unflatten(0, shape[:2])
        expected = network.norm(values, "norm", alpha * 0.2, training)
        torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-12)
        assert_same_statistics(norm, network, "norm")
        actual = gradients(output, weights, norm, values)
        gamma, beta = network.weights["norm.weight"], network.weights["norm.bias"]
        naive_gradients = torch.autograd.grad((expected * weights).sum(), [values, gamma, beta])
        for gradient, naive_gradient in zip(actual, naive_gradients, strict=True):
            torch.testing.assert_close(gradient, naive_gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("double_precision")
def test_tdbn_by_hand():
    # one channel, values 1 and 3 (mean 2, biased variance 1, unbiased 2), gamma 3, beta .5
    norm = TimeDependentBatchNorm(1, 0.2)
    with torch.no_grad():
        norm.weight.fill_(3)
        norm.bias.fill_(0.5)
    output = norm(torch.tensor([[1.0], [3.0]])).flatten().tolist()
    assert output == pytest.approx([-0.1, 1.1], abs=1e-5)
    assert norm.running_mean.item() == pytest.approx(0.2)
    assert norm.running_var.item() == pytest.approx(0.9 + 0.1 * 2)


@pytest.mark.usefixtures("double_precision")
@given(
    time_steps=st.integers(1, 16),
    n=st.integers(1, 4),
    size=st.integers(2, 4),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=15, derandomize=True, database=None)
def test_repeats_are_real_repetitions(time_steps, n, size, seed):
    images = draw((n, 3, size, size), seed)
    once, repeated = perturbed_norm(3), perturbed_norm(3)
    output = once(images, repeats=time_steps)
    expected = repeated(torch.cat([images] * time_steps))
    torch.testing.assert_close(torch.cat([output] * time_steps), expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(once.running_mean, repeated.running_mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(once.running_var, repeated.running_var, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("double_precision")
def test_repeats_matter_for_the_running_variance():
    images = draw((1, 3, 2, 2))
    once, repeated = perturbed_norm(3), perturbed_norm(3)
    once(images)
    repeated(images, repeats=16)
    assert (once.running_var - repeated.running_var).abs().min() > 1e-4


@pytest.mark.parametrize("repeats", [1, 16])
def test_evaluation_mode_keeps_the_running_statistics(repeats):
    norm = perturbed_norm(3).eval()
    before = norm.running_mean.clone(), norm.running_var.clone()
    norm(draw((4, 3, 5, 5)), repeats=repeats)
    assert torch.equal(norm.running_mean, before[0])
    assert torch.equal(norm.running_var, before[1])


def test_running_statistics_carry_no_graph():
    norm = perturbed_norm(3)
    norm(draw((4, 3, 5, 5)).requires_grad_(), repeats=4)
    assert not norm.running_mean.requires_grad
    assert not norm.running_var.requires_grad


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", SYNAPSES)
def test_spiking_layer_is_the_naive_one(backend, kind, training):
    build, naive_synapse, shape = SYNAPSES[kind]
    features = 30 if kind == "linear" else 6
    layer = spiking_layer(backend, build, features).train(training)
    network = naive_network(layer, training)
    inputs = spike_train(shape).requires_grad_()
    spikes = layer(inputs)
    expected = network.layer("layer", naive_synapse, inputs)
    assert 0.05 < expected.mean() < 0.95
    assert torch.equal(spikes, expected)
    assert_same_statistics(layer.norm, network, "layer.norm")

    weights = draw(spikes.shape, seed=9)
    actual = gradients(spikes, weights, layer, inputs)
    names = [f"layer.{name}" for name, _ in layer.named_parameters()]
    tensors = [inputs, *(network.weights[name] for name in names)]
    naive_gradients = torch.autograd.grad((expected * weights).sum(), tensors)
    for gradient, naive_gradient in zip(actual, naive_gradients, strict=True):
        torch.testing.assert_close(gradient, naive_gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("time_steps", [1, 4])
def test_direct_coding_is_a_repeated_image(backend, training, time_steps):
    layer = spiking_layer(
        backend, lambda backend: backend.direct_coding(3, 6, SPEC, time_steps), 6
    ).train(training)
    network = naive_network(layer, training)
    images = draw((2, 3, 8, 8)).requires_grad_()
    spikes = layer(images)
    expected = network.layer("layer", naive.convolution, torch.stack([images] * time_steps))
    assert 0.05 < expected.mean() < 0.95
    assert torch.equal(spikes, expected)
    assert_same_statistics(layer.norm, network, "layer.norm")

    weights = draw(spikes.shape, seed=9)
    actual = gradients(spikes, weights, layer, images)
    names = [f"layer.{name}" for name, _ in layer.named_parameters()]
    tensors = [images, *(network.weights[name] for name in names)]
    naive_gradients = torch.autograd.grad((expected * weights).sum(), tensors)
    for gradient, naive_gradient in zip(actual, naive_gradients, strict=True):
        torch.testing.assert_close(gradient, naive_gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", SYNAPSES)
def test_layers_are_identical_on_all_backends(all_backends, kind, training):
    build, _, shape = SYNAPSES[kind]
    features = 30 if kind == "linear" else 6
    inputs = spike_train(shape).requires_grad_()
    results = {}
    for name, backend in all_backends.items():
        layer = spiking_layer(backend, build, features).train(training)
        spikes = layer(inputs)
        results[name] = spikes, gradients(spikes, draw(spikes.shape, seed=9), layer, inputs)
    expected_spikes, expected_gradients = results.pop("reference")
    assert 0.05 < expected_spikes.mean() < 0.95
    for spikes, actual in results.values():
        assert torch.equal(spikes, expected_spikes)
        scale = max(gradient.abs().max().item() for gradient in expected_gradients)
        for gradient, expected in zip(actual, expected_gradients, strict=True):
            torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("time_steps", [1, 2, 7])
@pytest.mark.parametrize("channels", [1, 3])
def test_read_out_is_a_convolution_at_each_step(time_steps, channels):
    synapse = to_image(5, channels)
    spikes = spike_train((time_steps, 2, 5, 6, 6)).requires_grad_()
    images = MembraneReadout(synapse)(spikes)
    expected = naive.read_out(torch.stack([synapse(step) for step in spikes]))
    torch.testing.assert_close(images, expected, rtol=1e-10, atol=1e-12)
    weights = draw(images.shape)
    actual = gradients(images, weights, synapse, spikes)
    for gradient, other in zip(actual, gradients(expected, weights, synapse, spikes), strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-11)


def test_read_out_is_a_leaky_integrator_that_never_fires():
    synapse = to_image(5, 3)
    spikes = spike_train((6, 2, 5, 4, 4))
    potential = torch.zeros(2, 3, 4, 4)
    for step in spikes:
        potential = 0.8 * potential + synapse(step)
    torch.testing.assert_close(MembraneReadout(synapse)(spikes), torch.tanh(potential))


def test_read_out_weighs_the_last_step_most():
    assert readout_weights(4).tolist() == pytest.approx([0.512, 0.64, 0.8, 1.0], rel=1e-15)


def test_postsynaptic_potential_by_hand():
    spikes = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    expected = [[0.5, 0.0], [0.25, 0.0], [0.625, 0.5], [0.8125, 0.25]]
    assert postsynaptic_potential(spikes).tolist() == expected


@pytest.mark.usefixtures("double_precision")
def test_postsynaptic_potential_is_the_naive_recursion():
    trains = draw((9, 4, 3))
    actual = postsynaptic_potential(trains)
    for i in range(4):
        for c in range(3):
            expected = torch.stack(naive.psp(trains[:, i, c]))
            torch.testing.assert_close(actual[:, i, c], expected, rtol=1e-12, atol=1e-12)


def test_postsynaptic_potential_of_a_mean_is_the_mean_of_the_potentials():
    spikes = spike_train((6, 2, 3, 20))
    torch.testing.assert_close(
        postsynaptic_potential(spikes.mean(-1)), postsynaptic_potential(spikes).mean(-1)
    )
