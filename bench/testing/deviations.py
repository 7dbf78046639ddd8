"""Deviations of the spikes and gradients of a neuron from its equations."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.backend import NeuronSpec
from bench.store.schema import (
    ANOTHER_NEURON,
    EXACT,
    NEURON_VERDICTS,
    WITHIN_ROUNDING,
    NeuronVerdict,
)
from bench.testing.equations import from_window_edge, lif_backward, lif_forward

ROUNDING = 32 * torch.finfo(torch.float32).eps
"""Relative error of a potential that float32 explains, over a few time steps."""
GRADIENT_TOLERANCE = 1e-3
"""Error of a gradient relative to the largest, that float32 explains."""


@dataclass(frozen=True)
class Finding:
    """The comparison of one property of a neuron or a layer with the equations.

    Attributes:
        verdict: one of ``NEURON_VERDICTS``.
        message: what differs, in one line; empty for ``exact``.
    """

    verdict: NeuronVerdict
    message: str = ""


@dataclass(frozen=True)
class Probe:
    """Currents, and the weights of the sums whose gradients are compared.

    Attributes:
        currents: input currents ``(T, N, ...)``, float32.
        membrane: potential at the start ``(N, ...)``, float32; None for rest.
        grad_spikes: gradient of the spikes ``(T, N, ...)``.
        grad_membrane: gradient of the last potential ``(N, ...)``.
        tolerance: error of a potential that rounding explains; 0 if nothing is rounded.
    """

    currents: Tensor
    membrane: Tensor | None
    grad_spikes: Tensor
    grad_membrane: Tensor
    tolerance: float


@dataclass(frozen=True)
class Computed:
    """The answer of a neuron to a probe.

    Attributes:
        spikes: spikes ``(T, N, ...)``.
        membrane: potential after the last reset ``(N, ...)``.
        gradients: gradients of currents and, if the probe has one, of the first potential.
    """

    spikes: Tensor
    membrane: Tensor
    gradients: tuple[Tensor, ...]


def worst(findings: Iterable[Finding]) -> NeuronVerdict:
    """Return the gravest verdict, ``exact`` if there is none.

    >>> worst([Finding("within_rounding"), Finding("exact")])
    'within_rounding'
    """
    found = {finding.verdict for finding in findings}
    return next((verdict for verdict in reversed(NEURON_VERDICTS) if verdict in found), EXACT)


def spike_deviation(
    spec: NeuronSpec, spikes: Tensor, currents: Tensor, membrane: Tensor | None, tolerance: float
) -> Finding:
    """Compare spikes with the equations, each step from where the spikes before it lead.

    A spike that differs therefore does not count again in the steps after it.

    Args:
        spec: the neuron.
        spikes: spikes ``(T, N, ...)`` to judge.
        currents: input currents ``(T, N, ...)``.
        membrane: potential at the start ``(N, ...)``; None for rest.
        tolerance: distance from the threshold within which a spike may differ.
    """
    if spikes.shape != currents.shape:
        return Finding(
            ANOTHER_NEURON,
            f"the spikes have the shape {tuple(spikes.shape)}, expected {tuple(currents.shape)}",
        )
    found = spikes.double()
    if not ((found == 0) | (found == 1)).all():
        low, high = found.min().item(), found.max().item()
        return Finding(ANOTHER_NEURON, f"the spikes lie in {low:.3g}..{high:.3g}, expected 0 or 1")
    expected = lif_forward(spec, currents, membrane, found)
    differs = expected.spikes != found
    if not differs.any():
        return Finding(EXACT)
    far = differs & ((expected.potentials - spec.threshold).abs() > tolerance)
    if far.any() or tolerance == 0:
        wrong = far if far.any() else differs
        at = int(wrong.flatten(1).any(1).nonzero()[0]) + 1
        u = expected.potentials[wrong][0].item()
        return Finding(
            ANOTHER_NEURON,
            f"{int(wrong.sum())} of {wrong.numel()} spikes differ from the equations, first at "
            f"t = {at}: the potential {u:.6g} and the threshold {spec.threshold:.6g} give "
            f"{int(expected.spikes[wrong][0])}; bench.backend.NeuronSpec has the equations",
        )
    return Finding(
        WITHIN_ROUNDING,
        f"{int(differs.sum())} of {differs.numel()} spikes differ, each at a potential that equals "
        "the threshold up to rounding",
    )


def membrane_deviation(spec: NeuronSpec, computed: Computed, probe: Probe) -> Finding:
    """Compare the last potential with the equations, from the neuron's own spikes.

    Bits that differ within the tolerance are found by the comparison with a plain neuron.

    Args:
        spec: the neuron.
        computed: what it computed.
        probe: what it computed that for.
    """
    expected = lif_forward(spec, probe.currents, probe.membrane, computed.spikes).membrane
    if computed.membrane.shape != expected.shape:
        return Finding(
            ANOTHER_NEURON,
            f"the last potential has the shape {tuple(computed.membrane.shape)}, expected "
            f"{tuple(expected.shape)}",
        )
    error = (computed.membrane.double() - expected).abs().max().item()
    if not error <= probe.tolerance:
        return Finding(
            ANOTHER_NEURON,
            f"the potential after the last reset differs from the equations by up to {error:.3g}",
        )
    return Finding(EXACT)


def gradient_deviation(spec: NeuronSpec, computed: Computed, probe: Probe) -> Finding:
    """Compare gradients with backpropagation through the equations, from the neuron's own spikes.

    Neurons whose potential comes within rounding of a jump of the surrogate gradient are left out.

    Args:
        spec: the neuron.
        computed: what it computed.
        probe: what it computed that for.
    """
    forward = lif_forward(spec, probe.currents, probe.membrane, computed.spikes)
    expected = lif_backward(
        spec, forward.potentials, computed.spikes, probe.grad_spikes, probe.grad_membrane
    )
    near = from_window_edge(spec, forward.potentials) <= max(probe.tolerance, ROUNDING)
    known = ~near.any(0)
    for name, found, true in zip(
        ("currents", "first potential"), computed.gradients, expected, strict=False
    ):
        scale = true[..., known].abs().max().clamp(min=1e-12)
        error = ((found.double() - true)[..., known].abs().max() / scale).item()
        if not error <= GRADIENT_TOLERANCE:
            return Finding(
                ANOTHER_NEURON,
                f"the gradient of the {name} differs from the equations by up to {error:.2g} of "
                "the largest",
            )
    return Finding(EXACT)
