"""Layers of the papers' spiking networks.

Spike trains are ``(T, N, ...)``. Time is folded into the batch for everything but the neuron, so
one 2-D convolution serves all time steps.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.fused.lazy_tensors import Spikes, Weighted, bytes_of
from bench.model import SpikingNeuron

EPSILON = 1e-5
MOMENTUM = 0.1
READOUT_DECAY = 0.8


class TimeDependentBatchNorm(nn.Module):
    """tdBN: batch norm with statistics over time, batch and space, scaled to the threshold.

    ``scale * (x - mean) / sqrt(var + 1e-5) * gamma + beta`` on ``(T * N, C, ...)``, with
    ``scale = alpha * threshold`` (Zheng et al., AAAI 2021, arXiv:2011.05280).
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, features: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, input: Tensor, repeats: int = 1) -> Tensor:
        """Normalise ``(T * N, C, ...)``.

        Args:
            input: the currents.
            repeats: how many equal time steps ``input`` stands for. The statistics are those of
                all of them: the mean and the biased variance do not change, the unbiased
                variance that is kept for evaluation does.
        """
        n = input.numel() // input.shape[1]
        if self.training and n * repeats == 1:
            # A single value is its own mean; PyTorch refuses it, as it has no unbiased variance.
            return self.bias.expand_as(input)
        kept = (1 - MOMENTUM) * self.running_var
        output = F.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight * self.scale,
            self.bias,
            self.training,
            MOMENTUM,
            EPSILON,
        )
        if self.training and repeats > 1:
            correction = (n - 1) / n * (n * repeats) / (n * repeats - 1)
            self.running_var = kept + (self.running_var - kept) * correction
        return output

    def track(self, mean: Tensor, variance: Tensor, values: int) -> None:
        """Move the running statistics towards those of a batch.

        Args:
            mean: ``(C,)``.
            variance: biased, ``(C,)``.
            values: of each channel that they are of, at least two.
        """
        self.running_mean.lerp_(mean, MOMENTUM)
        self.running_var.lerp_(variance * (values / (values - 1)), MOMENTUM)


class SpikingLayer(nn.Module):
    """Synapses, tdBN and LIF neurons: ``(T, N, ...)`` spikes in, ``(T, N, ...)`` spikes out."""

    def __init__(
        self, synapse: nn.Module, norm: TimeDependentBatchNorm, neuron: SpikingNeuron
    ) -> None:
        super().__init__()
        self.synapse = synapse
        self.norm = norm
        self.neuron = neuron
        neuron.bytes_taken = True

    def forward(self, spikes: Tensor) -> Tensor:
        """Spikes of the layer for the spikes of the one before."""
        currents = self.synapse(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2])
        return self.neuron(currents, self.norm)


class DirectCodingLayer(SpikingLayer):
    """The first layer: an image ``(N, C, H, W)`` that is the input at each of ``T`` steps.

    Its currents are the same at every step, so synapses and norm run once.
    """

    def __init__(
        self,
        synapse: nn.Module,
        norm: TimeDependentBatchNorm,
        neuron: SpikingNeuron,
        time_steps: int,
    ) -> None:
        super().__init__(synapse, norm, neuron)
        self.time_steps = time_steps

    def forward(self, images: Tensor) -> Tensor:
        """Spikes ``(T, N, C', H', W')`` for images."""
        return self.neuron(self.synapse(images)[None], self.norm, self.time_steps)


class MembraneReadout(nn.Module):
    """``tanh(sum_t 0.8^(T - t) * (W * s_t + b))``: last potential of a leaky integrator.

    The sum is linear in the synapses, so they run once, on the weighted sum of their inputs
    (arXiv:2110.00375).
    """

    def __init__(self, synapse: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.synapse = synapse

    def forward(self, spikes: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` in [-1, 1] for spikes ``(T, N, C', H, W)``."""
        weights = readout_weights(len(spikes)).tolist()
        return self._image(_WeightedSum.apply(weights, spikes, self.synapse.weight.dtype), weights)

    def prefixes(self, spikes: Tensor) -> Iterator[Tensor]:
        """Images of the first t = 1..T steps of the spikes, without gradient."""
        summed = torch.zeros_like(spikes[0], dtype=self.synapse.weight.dtype)
        for t, spike in enumerate(spikes, start=1):
            summed = READOUT_DECAY * summed + spike
            yield self._image(summed, readout_weights(t).tolist())

    def _image(self, summed: Tensor, weights: list[float]) -> Tensor:
        potential = self.synapse(summed).to(summed)
        assert self.synapse.bias is not None
        extra_bias = (sum(weights) - 1) * self.synapse.bias
        return torch.tanh(potential + extra_bias[:, None, None])


class _WeightedSum(torch.autograd.Function):
    """``sum_t w_t * s_t``, step by step: PyTorch's outer product of w and a gradient is slow."""

    @staticmethod
    def forward(ctx: Any, weights: list[float], spikes: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.weights, ctx.dtype = weights, spikes.dtype
        ctx.in_bytes = isinstance(spikes, Spikes) or spikes.dtype == torch.uint8
        if ctx.in_bytes:
            from baselines.fused.cpu import lif

            return lif.weighted_sum(bytes_of(spikes), torch.tensor(weights, dtype=dtype))
        total = torch.zeros_like(spikes[0], dtype=dtype)
        for weight, spike in zip(weights, spikes, strict=True):
            total.add_(spike, alpha=weight)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        weights = torch.tensor(ctx.weights, dtype=ctx.dtype, device=gradient.device)
        of_spikes = Weighted(weights, gradient.to(ctx.dtype))
        return None, of_spikes if ctx.in_bytes else of_spikes.computed(), None


def readout_weights(time_steps: int) -> Tensor:
    """``0.8^(T - t)`` for t = 1..T, shape ``(T,)``, float64."""
    exponents = torch.arange(time_steps - 1, -1, -1, dtype=torch.float64)
    return READOUT_DECAY**exponents


def postsynaptic_potential(spikes: Tensor) -> Tensor:
    """The PSP filter ``p_t = p_{t-1} + (s_t - p_{t-1}) / 2``, ``p_0 = 0``, along the first axis.

    Source: arXiv:2110.00375, with time constant 2.
    """
    potential = torch.zeros_like(spikes[0])
    potentials = []
    for spike in spikes:
        potential = potential + (spike - potential) / 2
        potentials.append(potential)
    return torch.stack(potentials)
