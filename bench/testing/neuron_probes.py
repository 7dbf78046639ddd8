"""Probes of a neuron: currents that tell neurons apart, and what a backend makes of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from bench.backend import NeuronSpec, Rectangle, SpikingBackend, SpikingNeuron, stateful
from bench.store.schema import ANOTHER_NEURON, EXACT, WITHIN_ROUNDING
from bench.testing.deviations import (
    GRADIENT_TOLERANCE,
    ROUNDING,
    Computed,
    Finding,
    Probe,
    gradient_deviation,
    membrane_deviation,
    spike_deviation,
)
from bench.testing.equations import PlainNeuron, potential_bound

TIME_STEPS = 8
SHAPE = (3, 256)
GRID = 16


def neuron_findings(
    backend: SpikingBackend, spec: NeuronSpec, device: torch.device
) -> Iterator[Finding]:
    """Compare the neuron that a backend builds with the equations, in float32.

    The neuron is computed for random currents, and its twin, whose constants and currents are
    multiples of powers of 2, for currents that meet the threshold exactly: there nothing is
    rounded, and each spike must be the right one.

    Args:
        backend: the backend.
        spec: the neuron to ask for.
        device: device to compute on.

    Yields:
        A finding for each property.

    Raises:
        UnsupportedNeuronError: the backend cannot build the neuron.
    """
    neuron = backend.neuron(spec).to(device)
    probe = random_probe(spec, device)
    yield from _findings(neuron, spec, probe)
    yield from _other_calls(neuron, spec, replace(probe, membrane=None))
    yield _constant_currents(neuron, spec, probe)
    twin = dyadic_twin(spec)
    yield from _findings(backend.neuron(twin).to(device), twin, dyadic_probe(twin, device))


def random_probe(spec: NeuronSpec, device: torch.device) -> Probe:
    """Return random currents that let the neuron fire at some steps and not at others."""
    currents = (_draws(0, TIME_STEPS, *SHAPE) + 0.4) * 1.5 * spec.threshold
    membrane = _draws(1, *SHAPE).clamp(max=0.9) * spec.threshold
    tolerance = ROUNDING * potential_bound(spec, currents)
    return _probe(currents.to(device), membrane.to(device), tolerance)


def dyadic_twin(spec: NeuronSpec) -> NeuronSpec:
    """Return the neuron with decay 1/2 and threshold 1/4, whose potentials are exact.

    A neuron without leak keeps its decay of 1.

    >>> dyadic_twin(NeuronSpec(0.25, 0.2, Rectangle(0.2, 0.3))).threshold
    0.25
    """
    surrogate = spec.surrogate
    if isinstance(surrogate, Rectangle):
        surrogate = replace(surrogate, centre=surrogate.centre - spec.threshold + 0.25)
    decay = 1.0 if spec.decay == 1 else 0.5
    return replace(spec, decay=decay, threshold=0.25, surrogate=surrogate)


def dyadic_probe(spec: NeuronSpec, device: torch.device) -> Probe:
    """Return currents that are multiples of 1/16, so that many potentials equal the threshold."""
    currents = (_draws(2, TIME_STEPS, *SHAPE) * GRID / 2).round() / GRID
    membrane = ((_draws(3, *SHAPE) * GRID / 2).round() / GRID).clamp(max=spec.threshold / 2)
    return _probe(currents.to(device), membrane.to(device), 0.0)


def compute(neuron: SpikingNeuron, probe: Probe) -> Computed:
    """Run a neuron forward and backward."""
    currents = probe.currents.clone().requires_grad_()
    first = None if probe.membrane is None else probe.membrane.clone().requires_grad_()
    spikes, membrane = neuron.integrate(currents, first)
    inputs = [currents] if first is None else [currents, first]
    total = (spikes * probe.grad_spikes).sum() + (membrane * probe.grad_membrane).sum()
    gradients = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)
    return Computed(spikes.detach(), membrane.detach(), gradients)


def _findings(neuron: SpikingNeuron, spec: NeuronSpec, probe: Probe) -> Iterator[Finding]:
    for case in (replace(probe, membrane=None), probe):
        computed = compute(neuron, case)
        spikes = spike_deviation(
            spec, computed.spikes, case.currents, case.membrane, tolerance=case.tolerance
        )
        yield spikes
        if spikes.verdict == ANOTHER_NEURON:
            return
        yield membrane_deviation(spec, computed, case)
        yield gradient_deviation(spec, computed, case)
        yield _to_the_bit(computed, compute(PlainNeuron(spec), case))


def _to_the_bit(found: Computed, plain: Computed) -> Finding:
    """Compare with the plain neuron in the same precision."""
    pairs = zip(
        (found.spikes.float(), found.membrane, *found.gradients),
        (plain.spikes, plain.membrane, *plain.gradients),
        strict=True,
    )
    if all(torch.equal(one, other) for one, other in pairs):
        return Finding(EXACT)
    return Finding(WITHIN_ROUNDING, "potentials or gradients differ in their last bits")


def _other_calls(neuron: SpikingNeuron, spec: NeuronSpec, probe: Probe) -> Iterator[Finding]:
    """Compare further calls with the first: again, in evaluation mode, and step by step."""
    first = neuron(probe.currents)
    if not torch.equal(neuron(probe.currents), first):
        yield Finding(
            ANOTHER_NEURON,
            "a second call with the same currents gives other spikes: start each forward pass at "
            "rest, and draw nothing at random",
        )
    with torch.no_grad(), _evaluating(neuron):
        evaluated = neuron(probe.currents)
        with stateful(neuron):
            chunks = probe.currents.split([1, 4, TIME_STEPS - 5])
            stepped = torch.cat([neuron(chunk) for chunk in chunks])
    for spikes, what in (
        (first, "in a call"),
        (evaluated, "in evaluation mode without gradients"),
        (stepped, "with the state carried from call to call (bench.backend.stateful)"),
    ):
        finding = spike_deviation(spec, spikes, probe.currents, None, tolerance=probe.tolerance)
        yield replace(finding, message=finding.message and f"{what}: {finding.message}")


def _constant_currents(neuron: SpikingNeuron, spec: NeuronSpec, probe: Probe) -> Finding:
    """Compare currents of one step that stand for all steps with the same currents at each step."""
    currents = probe.currents[:1].clone().requires_grad_()
    steps = currents.expand(TIME_STEPS, *SHAPE)
    repeated, each = neuron(currents, TIME_STEPS), neuron(steps)
    tolerance = probe.tolerance
    finding = spike_deviation(spec, repeated.detach(), steps.detach(), None, tolerance=tolerance)
    message = finding.message and f"with equal currents passed once (repeats): {finding.message}"
    if finding.verdict == ANOTHER_NEURON or not torch.equal(repeated, each):
        return replace(finding, message=message)
    found, expected = (
        torch.autograd.grad((spikes * probe.grad_spikes).sum(), currents)[0]
        for spikes in (repeated, each)
    )
    error = ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12)).item()
    if not error <= GRADIENT_TOLERANCE:
        return Finding(
            ANOTHER_NEURON,
            "with equal currents passed once (repeats): their gradient is not the sum over the "
            f"steps, but differs from it by up to {error:.2g} of the largest",
        )
    return replace(finding, message=message)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode within the context."""
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)


def _probe(currents: Tensor, membrane: Tensor, tolerance: float) -> Probe:
    grad_spikes = _draws(4, *currents.shape).to(currents.device)
    return Probe(currents, membrane, grad_spikes, _draws(5, *SHAPE).to(currents.device), tolerance)


def _draws(seed: int, *shape: int) -> Tensor:
    """Return normal draws, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32)
