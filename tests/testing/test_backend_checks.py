"""Backends that are right, and backends that are wrong in one way each."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.backend import (
    Arctangent,
    NeuronSpec,
    Rectangle,
    SpikingBackend,
    SpikingNeuron,
    Triangle,
    UnsupportedNeuronError,
)
from bench.testing import backend_checks, check_backend, verdict
from bench.testing.equations import (
    PlainBackend,
    PlainNeuron,
    lif_backward,
    lif_forward,
    potential_bound,
)


class LoopNeuron(SpikingNeuron):
    """A loop over time, of which each test changes one thing."""

    def integrate(self, currents, membrane):
        residual = torch.zeros_like(currents[0]) if membrane is None else membrane
        spikes = []
        for current in currents:
            potential = self.charge(residual, current)
            spikes.append(self.fire(potential))
            residual = self.after(potential, spikes[-1])
        return torch.stack(spikes), residual

    def charge(self, residual, current):
        return self.spec.decay * residual + current

    def fire(self, potential):
        return self.spec.fire(potential)

    def after(self, potential, spikes):
        return self.spec.reset(potential, spikes)


class Soft(LoopNeuron):
    def after(self, potential, spikes):
        return potential - self.spec.threshold * spikes


class Noise(LoopNeuron):
    def integrate(self, currents, membrane):
        return torch.randn_like(currents) + 0 * currents, currents[-1]


class RandomSpikes(LoopNeuron):
    def fire(self, potential):
        return self.spec.fire(potential + 0.1 * torch.randn_like(potential))


class Tied(LoopNeuron):
    """Fires at the threshold whatever the specification says."""

    def fire(self, potential):
        excess = potential - self.spec.threshold
        spikes = self.spec.fire(potential)
        return spikes + ((excess >= 0).to(spikes) - spikes).detach()


class Detached(LoopNeuron):
    def after(self, potential, spikes):
        return self.spec.reset(potential, spikes.detach())


class Decayed(LoopNeuron):
    def charge(self, residual, current):
        return 0.99 * self.spec.decay * residual + current


class Wide(LoopNeuron):
    """Has the right spikes and the gradient of another surrogate."""

    def fire(self, potential):
        other = NeuronSpec(self.spec.decay, self.spec.threshold, Triangle(3.0))
        spikes = other.fire(potential)
        return spikes + (self.spec.fire(potential) - spikes).detach()


class Remembering(LoopNeuron):
    """Goes on from the potential of the call before."""

    last = None

    def integrate(self, currents, membrane):
        carried = self.last if membrane is None else membrane
        if carried is not None and carried.shape != currents.shape[1:]:
            carried = None
        spikes, membrane = super().integrate(currents, carried)
        self.last = membrane.detach()
        return spikes, membrane


class Forgetful(LoopNeuron):
    """Ignores the potential to start from."""

    def integrate(self, currents, membrane):
        return super().integrate(currents, None)


class Unrepeated(LoopNeuron):
    """Ignores that currents stand for several steps."""

    def forward(self, currents, repeats=1):
        return super().forward(currents)


class LastOnly(LoopNeuron):
    """Gives repeated currents the gradient of the last step alone."""

    def forward(self, currents, repeats=1):
        if repeats == 1:
            return super().forward(currents)
        return super().forward(torch.cat([*[currents.detach()] * (repeats - 1), currents]))


class Leaking(LoopNeuron):
    """Leaks, if ever so little, where it is asked for a neuron without leak."""

    def charge(self, residual, current):
        return min(self.spec.decay, 0.9999) * residual + current


class Rounding(LoopNeuron):
    """Decays as SpikingJelly does."""

    def charge(self, residual, current):
        leak = 1 - self.spec.decay
        return residual - (residual / (1 / leak) if leak else 0) + current


def backend_of(neuron_class):
    class Backend(SpikingBackend):
        def neuron(self, spec):
            return neuron_class(spec)

    return Backend


WRONG = {
    Soft: "spikes differ from the equations",
    Noise: "expected 0 or 1",
    RandomSpikes: "spikes differ from the equations",
    Tied: "spikes differ from the equations",
    Detached: "the gradient of the currents differs",
    Decayed: "differ",
    Leaking: "the potential after the last reset differs",
    Wide: "the gradient of the currents differs",
    Remembering: "a second call with the same currents gives other spikes",
    Forgetful: "differ",
    Unrepeated: "with equal currents passed once (repeats): the spikes have the shape (1, 3, 256)",
    LastOnly: "their gradient is not the sum over the steps",
}


@pytest.mark.parametrize("neuron_class", WRONG, ids=lambda cls: cls.__name__)
def test_a_wrong_neuron_is_another_neuron(neuron_class):
    results = check_backend(backend_of(neuron_class), "cpu")
    failed = [each for each in results if each.outcome == "failed"]
    assert verdict(results) == "another_neuron"
    assert any(WRONG[neuron_class] in each.message for each in failed)
    assert all(each.message.startswith("another neuron: ") for each in failed)


def test_a_loop_over_time_is_exact():
    results = check_backend(backend_of(LoopNeuron), "cpu")
    assert {each.outcome for each in results} == {"passed"}
    assert verdict(results) == "exact"


def test_another_order_of_operations_is_within_rounding():
    results = check_backend(backend_of(Rounding), "cpu")
    assert "failed" not in {each.outcome for each in results}
    assert verdict(results) == "within_rounding"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reference", "exact"),
        ("snntorch", "exact"),
        ("spikingjelly", "within_rounding"),
        ("fused", "within_rounding"),
    ],
)
def test_the_verdict_on_each_backend_of_the_suite(name, expected):
    results = check_backend(name, "cpu")
    assert [each for each in results if each.outcome == "failed"] == []
    assert verdict(results) == expected


def test_what_a_backend_refuses_does_not_count():
    class Choosy(PlainBackend):
        def neuron(self, spec):
            if not isinstance(spec.surrogate, Rectangle):
                raise UnsupportedNeuronError("rectangles only")
            return super().neuron(spec)

    results = check_backend(Choosy, "cpu")
    refused = [each.message for each in results if each.outcome == "not applicable"]
    # Four neurons, and the four layers with each of two arctangents.
    assert refused == ["the backend refuses it: rectangles only"] * 12
    assert verdict(results) == "exact"


class WrongLinear(PlainBackend):
    def linear(self, inputs, outputs, spec, alpha=1.0):
        layer = super().linear(inputs, outputs, spec, alpha)
        layer.norm.scale *= 1.1
        return layer


class WrongReadout(PlainBackend):
    def readout(self, inputs, channels):
        readout = super().readout(inputs, channels)
        readout.weighted_sum = lambda spikes, weights: spikes.mean(0)
        return readout


class WrongSequence(PlainBackend):
    def sequence(self, layers):
        built = super().sequence(layers)
        built.register_forward_hook(lambda module, given, output: output.flip(0))
        return built


class WithWeights(PlainBackend):
    def neuron(self, spec):
        neuron = PlainNeuron(spec)
        neuron.register_buffer("decay", torch.tensor(spec.decay))
        return neuron


class WrongDetached(PlainBackend):
    """Builds layers whose reset has a gradient."""

    def layer(self, synapse, outputs, spec, alpha=1.0):
        return super().layer(synapse, outputs, replace(spec, reset_gradient=True), alpha)


class OtherSpec(PlainBackend):
    def neuron(self, spec):
        return PlainNeuron(NeuronSpec(0.5, spec.threshold, spec.surrogate))


@pytest.mark.parametrize(
    ("backend", "check", "words"),
    [
        (WrongLinear, "layer linear", "in training"),
        (WrongReadout, "the readout", "the images differ"),
        (WrongSequence, "a sequence of layers", "in a sequence"),
        (WithWeights, "a neuron has no weights", "decay"),
        (WrongDetached, "layer upsampling with a detached arctangent", "the gradient of"),
        (OtherSpec, "neuron of the smoke protocol", "the neuron has the spec"),
    ],
)
def test_a_replaced_layer_is_compared_with_its_equations(backend, check, words):
    (result,) = (each for each in check_backend(backend, "cpu") if each.check == check)
    assert result.outcome == "failed"
    assert words in result.message


@pytest.mark.parametrize("check", backend_checks("reference", "cpu"), ids=str)
def test_checks_are_tests_of_pytest(check):
    check()


SURROGATES = st.one_of(
    st.builds(Rectangle, st.floats(-0.5, 0.5), st.floats(0.2, 2)),
    st.builds(Triangle, st.floats(0.2, 2)),
    st.builds(Arctangent, st.floats(0.5, 4)),
)


NEURONS = st.builds(
    NeuronSpec,
    st.floats(0.05, 0.95) | st.just(1.0),
    st.floats(0.1, 2),
    SURROGATES,
    st.booleans(),
    st.booleans(),
)


@given(spec=NEURONS, seed=st.integers(0, 2**31))
@settings(max_examples=30, derandomize=True, database=None)
def test_gradients_by_hand_are_autograds_in_float64(spec, seed):
    generator = torch.Generator().manual_seed(seed)

    def draws(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64) * spec.threshold

    currents, membrane = draws(5, 2, 9).requires_grad_(), draws(2, 9).requires_grad_()
    weights, last = draws(5, 2, 9), draws(2, 9)
    spikes, final = PlainNeuron(spec).integrate(currents, membrane)
    expected = torch.autograd.grad(
        (spikes * weights).sum() + (final * last).sum(), (currents, membrane)
    )
    forward = lif_forward(spec, currents.detach(), membrane.detach())
    assert torch.equal(forward.spikes, spikes)
    torch.testing.assert_close(forward.membrane, final)
    found = lif_backward(
        spec, forward.potentials, forward.spikes, grad_spikes=weights, grad_membrane=last
    )
    torch.testing.assert_close(found, expected)


@given(spec=NEURONS, time_steps=st.integers(1, 9), seed=st.integers(0, 2**31))
@settings(max_examples=30, derandomize=True, database=None)
def test_no_potential_exceeds_its_bound_and_silent_neurons_reach_it(spec, time_steps, seed):
    generator = torch.Generator().manual_seed(seed)
    currents = torch.randn(time_steps, 50, generator=generator, dtype=torch.float64)
    currents[:, 0] = -currents.abs().max().clamp(min=spec.threshold)
    start = currents[0].clamp(max=spec.threshold)
    largest = lif_forward(spec, currents, start).potentials.abs().max().item()
    assert largest == pytest.approx(potential_bound(spec, currents))
