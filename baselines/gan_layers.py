"""Layers of the spiking GANs: batch norm per time step, neurons, and integrators as read-outs.

Shapes are time first. Batch norm is ordinary: each time step is normalised by its own statistics,
unlike in tdBN (arXiv:2305.10246 and its official code).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.backend import NORM_EPSILON, NORM_MOMENTUM, SpikingNeuron

INTEGRATOR_DECAY = 0.5


class PerStepBatchNorm(nn.Module):
    """Batch norm of each time step on its own; the running statistics are updated at each step.

    Args:
        features: number of channels C.
        batch_statistics: True to use the statistics of the batch in evaluation mode as well.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, features: int, batch_statistics: bool = False) -> None:
        super().__init__()
        self.batch_statistics = batch_statistics
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, currents: Tensor, repeats: int = 1) -> Tensor:
        """Normalise currents ``(T, N, C, ...)``; returns the same shape.

        Args:
            currents: input currents ``(T, N, C, ...)``.
            repeats: number of equal time steps that ``currents`` ``(1, N, C, ...)`` stands for.
                Each of them updates the running statistics.
        """
        if not self.training and not self.batch_statistics:
            running = self.running_mean, self.running_var
            normed = F.batch_norm(
                currents.flatten(0, 1), *running, self.weight, self.bias, eps=NORM_EPSILON
            )
            return normed.unflatten(0, currents.shape[:2])
        # Several equal updates are one update of a larger momentum.
        momentum = 1 - (1 - NORM_MOMENTUM) ** repeats
        return torch.stack([self._normalised(step, momentum) for step in currents])

    def _normalised(self, currents: Tensor, momentum: float) -> Tensor:
        """Normalise the currents of one step ``(N, C, ...)`` by their own statistics."""
        if currents.numel() == currents.shape[1]:
            # A single value is its own mean; PyTorch refuses it, as it has no unbiased variance.
            return self.bias.expand_as(currents)
        return F.batch_norm(
            currents,
            self.running_mean if self.training else None,
            self.running_var if self.training else None,
            self.weight,
            self.bias,
            training=True,
            momentum=momentum,
            eps=NORM_EPSILON,
        )


class PerStepLayer(nn.Module):
    """Synapses, batch norm per time step, and neurons.

    Args:
        synapse: module from ``(R, inputs, ...)`` to ``(R, outputs, ...)``, R any batch size.
        neuron: neurons of the layer.
        norm: batch norm; None for a layer without.
        pooled: True to average the spikes over squares of 2x2.
    """

    def __init__(
        self,
        synapse: nn.Module,
        neuron: SpikingNeuron,
        norm: PerStepBatchNorm | None = None,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        self.synapse = synapse
        self.norm = norm
        self.neuron = neuron
        self.pooled = pooled

    def forward(self, inputs: Tensor, repeats: int = 1) -> Tensor:
        """Return spikes ``(repeats * T, N, outputs, ...)``, averaged if ``pooled``.

        Args:
            inputs: inputs ``(T, N, inputs, ...)``.
            repeats: number of equal time steps that each of the T stands for; T is 1 if above 1.
                Synapses and batch norm then run once.
        """
        currents = self.synapse(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])
        if self.norm is not None:
            currents = self.norm(currents, repeats)
        spikes: Tensor = self.neuron(currents, repeats)
        return average(spikes) if self.pooled else spikes


def average(spikes: Tensor) -> Tensor:
    """Average spikes ``(T, N, C, H, W)`` over squares of 2x2: ``(T, N, C, H / 2, W / 2)``."""
    return F.avg_pool2d(spikes.flatten(0, 1), 2).unflatten(0, spikes.shape[:2])


class Integrator(nn.Module):
    """``u_T`` of ``u <- u + (W s_t + b - u) / 2`` from 0: neurons that never fire.

    ``u_T = sum_t 2^-(T - t + 1) (W s_t + b)`` is linear in the synapses, so they run once, on the
    weighted sum of their inputs.
    """

    def __init__(self, synapse: nn.Linear | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.synapse = synapse

    def forward(self, spikes: Tensor) -> Tensor:
        """Return potentials ``(N, outputs, ...)`` for spikes ``(T, N, inputs, ...)``."""
        weights = integrator_weights(len(spikes))
        potential: Tensor = self.synapse(self.weighted_sum(spikes, weights))
        bias = self.synapse.bias
        assert bias is not None
        missing = (sum(weights) - 1) * bias.view(-1, *[1] * (potential.ndim - 2))
        return potential + missing

    def weighted_sum(self, spikes: Tensor, weights: list[float]) -> Tensor:
        """Return ``sum_t w_t * s_t``, ``(N, ...)``, for spikes ``(T, N, ...)`` and T weights."""
        total = torch.zeros_like(spikes[0])
        for weight, spike in zip(weights, spikes, strict=True):
            total = total.add(spike, alpha=weight)
        return total


def integrator_weights(time_steps: int) -> list[float]:
    """Return ``2^-(T - t + 1)`` for t = 1..T.

    >>> integrator_weights(3)
    [0.125, 0.25, 0.5]
    """
    return [INTEGRATOR_DECAY ** (time_steps - t) for t in range(time_steps)]


@contextmanager
def tracked_twice(module: nn.Module, time_steps: int) -> Iterator[None]:
    """Update the running statistics in ``module`` as two equal passes would, by one pass.

    A pass makes ``a * r + b`` of statistics r, with ``a = 0.9^T``. Two passes make
    ``r_1 + a * (r_1 - r)``, where ``r_1`` is the result of the first.

    Args:
        module: module with batch norms, in training mode.
        time_steps: number of updates T in a pass.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, PerStepBatchNorm)]
    running = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]
    before = [buffer.clone() for buffer in running]
    yield
    kept = (1 - NORM_MOMENTUM) ** time_steps
    for buffer, old in zip(running, before, strict=True):
        # Past autograd, which would take it for a change of an input.
        buffer.data.add_(buffer - old, alpha=kept)
