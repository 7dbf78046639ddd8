"""The equations of :class:`~bench.backend.NeuronSpec`, written out once, in two independent ways.

:class:`PlainNeuron` computes them with PyTorch's autograd in the precision of its input.
:func:`lif_forward` and :func:`lif_backward` compute them in float64, with the gradients derived by
hand: backpropagation through time.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.backend import Arctangent, NeuronSpec, Rectangle, SpikingBackend, SpikingNeuron, Triangle


class PlainNeuron(SpikingNeuron):
    """The equations in a loop over time."""

    def integrate(self, currents: Tensor, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return spikes ``(T, N, ...)`` and the last potential ``(N, ...)``."""
        residual = torch.zeros_like(currents[0]) if membrane is None else membrane
        spikes = []
        for current in currents:
            potential = self.spec.decay * residual + current
            spikes.append(self.spec.fire(potential))
            residual = self.spec.reset(potential, spikes[-1])
        return torch.stack(spikes), residual


class PlainBackend(SpikingBackend):
    """Plain neurons in plain layers, for checks of models."""

    def neuron(self, spec: NeuronSpec) -> PlainNeuron:
        """Return a neuron; every specification is supported."""
        return PlainNeuron(spec)


@dataclass(frozen=True)
class Trajectory:
    """Potentials and spikes that neurons compute from their currents.

    Attributes:
        potentials: membrane potentials before the reset ``(T, N, ...)``, float64.
        spikes: spikes in {0, 1}, ``(T, N, ...)``, float64.
        membrane: potential after the last reset ``(N, ...)``, float64.
    """

    potentials: Tensor
    spikes: Tensor
    membrane: Tensor


def lif_forward(
    spec: NeuronSpec,
    currents: Tensor,
    membrane: Tensor | None = None,
    spikes: Tensor | None = None,
) -> Trajectory:
    """Compute ``u_t = decay v_{t-1} + x_t``, ``o_t = [u_t > threshold]``, ``v_t = u_t (1 - o_t)``.

    Args:
        spec: the neuron.
        currents: input currents ``(T, N, ...)``.
        membrane: potential ``v_0``, ``(N, ...)``; None for 0.
        spikes: spikes ``o_t``, ``(T, N, ...)``, by which the neurons are reset; None for their own.

    >>> spec = NeuronSpec(0.5, 0.25, Rectangle(0.25, 1.0))
    >>> result = lif_forward(spec, torch.tensor([[0.25], [0.25], [0.125]]))
    >>> result.potentials.flatten().tolist(), result.spikes.flatten().tolist()
    ([0.25, 0.375, 0.125], [0.0, 1.0, 0.0])
    """
    residual = torch.zeros_like(currents[0]).double() if membrane is None else membrane.double()
    potentials, fired = [], []
    for t, current in enumerate(currents.double()):
        potential = spec.decay * residual + current
        excess = potential - spec.threshold
        own = (excess >= 0 if spec.fires_at_threshold else excess > 0).double()
        fired.append(own)
        residual = potential * (1 - (own if spikes is None else spikes[t].double()))
        potentials.append(potential)
    return Trajectory(torch.stack(potentials), torch.stack(fired), residual)


def potential_bound(spec: NeuronSpec, currents: Tensor) -> float:
    """Return a bound of the potentials that a neuron reaches, with or without leak.

    No potential exceeds ``c (1 + decay + ... + decay^T)``, where ``c`` is the largest current or
    the threshold, if the potential at the start does not exceed ``c``.

    Args:
        spec: the neuron.
        currents: input currents ``(T, N, ...)``.

    >>> neuron = NeuronSpec(1.0, 0.25, Rectangle(0.25, 1.0))
    >>> potential_bound(neuron, torch.tensor([[0.5], [-2.0]]))
    6.0
    """
    growth = sum(spec.decay**steps for steps in range(len(currents) + 1))
    return max(currents.abs().max().item(), spec.threshold) * growth


def lif_backward(
    spec: NeuronSpec,
    potentials: Tensor,
    spikes: Tensor,
    grad_spikes: Tensor,
    grad_membrane: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the currents ``(T, N, ...)`` and of the first potential ``(N, ...)``.

    With ``h`` the surrogate gradient and ``g`` the gradients, backwards in time:
    ``g_u = (g_o - [reset_gradient] * g_v * u) * h(u) + g_v * (1 - o)``, ``g_x = g_u``, and the
    gradient of the potential before is ``decay * g_u``.

    Args:
        spec: the neuron.
        potentials: potentials ``(T, N, ...)`` before the reset, float64.
        spikes: spikes ``(T, N, ...)`` by which the neurons were reset.
        grad_spikes: gradient of the spikes ``(T, N, ...)``.
        grad_membrane: gradient of the potential after the last reset ``(N, ...)``.
    """
    grad_v = grad_membrane.double()
    grad_currents = torch.empty_like(potentials)
    for t in reversed(range(len(potentials))):
        u, o = potentials[t], spikes[t].double()
        grad_o = grad_spikes[t].double()
        if spec.reset_gradient:
            grad_o = grad_o - grad_v * u
        grad_currents[t] = grad_o * surrogate_gradient(spec, u) + grad_v * (1 - o)
        grad_v = spec.decay * grad_currents[t]
    return grad_currents, grad_v


def surrogate_gradient(spec: NeuronSpec, potential: Tensor) -> Tensor:
    """Return the surrogate gradient ``(...)`` at potentials ``(...)``.

    >>> surrogate_gradient(NeuronSpec(0.5, 1.0, Triangle(2.0)), torch.tensor([1.0, 2.0, 4.0]))
    tensor([0.5000, 0.2500, 0.0000])
    """
    match spec.surrogate:
        case Rectangle(centre, width):
            return ((potential - centre).abs() < width / 2).to(potential.dtype) / width
        case Triangle(width):
            distance = (potential - spec.threshold).abs() / width
            return (1 - distance).clamp(min=0) / width
        case Arctangent(alpha):
            slope = math.pi * alpha * (potential - spec.threshold) / 2
            return alpha / (2 * (1 + slope**2))


def from_window_edge(spec: NeuronSpec, potential: Tensor) -> Tensor:
    """Return the distance ``(...)`` of potentials from where the surrogate gradient jumps."""
    if not isinstance(spec.surrogate, Rectangle):
        return torch.full_like(potential, math.inf)
    centre, width = spec.surrogate.centre, spec.surrogate.width
    return ((potential - centre).abs() - width / 2).abs()
