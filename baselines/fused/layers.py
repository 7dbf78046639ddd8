"""The layers of the fast backend: synapses and neurons that hand compact spikes to each other."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from baselines.fused.cpu import lif
from baselines.fused.cpu.lazy_tensors import ByteSpikes, WeightedSteps, bytes_of
from baselines.fused.synapses import bias_left_out
from bench.backend import DirectCodingLayer, MembraneReadout, SpikingLayer


class FusedLayer(SpikingLayer):
    """Synapses, and neurons that apply tdBN themselves."""

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the layer's spikes ``(T, N, ...)`` for input spikes ``(T, N, ...)``."""
        currents = self.synapse(spikes.flatten(0, 1)).unflatten(0, spikes.shape[:2])
        return self.neuron(currents, norm=self.norm, bias=bias_left_out(self.synapse))


class FusedDirectCodingLayer(DirectCodingLayer):
    """The first layer: its neurons read the same currents at each time step."""

    def forward(self, images: Tensor) -> Tensor:
        """Return spikes ``(T, N, C', H', W')`` for images ``(N, C, H, W)``."""
        currents = self.synapse(images)[None]
        bias = bias_left_out(self.synapse)
        return self.neuron(currents, self.time_steps, norm=self.norm, bias=bias)


class FusedReadout(MembraneReadout):
    """The read-out, on spikes of a bit or a byte each."""

    def weighted_sum(self, spikes: Tensor, weights: list[float]) -> Tensor:
        """Return ``sum_t w_t * s_t``, ``(N, ...)``, for spikes ``(T, N, ...)`` and T weights."""
        return weighted_sum(spikes, weights, self.synapse.weight.dtype)


def weighted_sum(spikes: Tensor, weights: list[float], dtype: torch.dtype) -> Tensor:
    """Return ``sum_t w_t * s_t``, ``(N, ...)``.

    Args:
        spikes: spikes ``(T, N, ...)``.
        weights: T weights.
        dtype: dtype of the sum.
    """
    return _WeightedSum.apply(weights, spikes, dtype)


class _WeightedSum(torch.autograd.Function):
    """``sum_t w_t * s_t`` without a copy of the spikes; its gradient stays a lazy product."""

    @staticmethod
    def forward(ctx: Any, weights: list[float], spikes: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.weights, ctx.dtype = weights, spikes.dtype
        in_bytes = isinstance(spikes, ByteSpikes) or spikes.dtype == torch.uint8
        ctx.lazy = in_bytes or spikes.is_cuda
        if in_bytes:
            return lif.weighted_sum(bytes_of(spikes), _constant(tuple(weights), dtype))
        if spikes.is_cuda:
            from baselines.fused import cuda

            factors = _constant(tuple(weights), dtype, spikes.device)
            return cuda.weighted_sum(spikes, factors)
        total = torch.zeros_like(spikes[0], dtype=dtype)
        for weight, spike in zip(weights, spikes, strict=True):
            total.add_(spike, alpha=weight)
        return total

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor) -> tuple[None, Tensor, None]:
        weights = _constant(tuple(ctx.weights), ctx.dtype, grad_total.device)
        grad_spikes = WeightedSteps(weights, grad_total.to(ctx.dtype))
        return None, grad_spikes if ctx.lazy else grad_spikes.materialise(), None


@cache
def _constant(
    values: tuple[float, ...], dtype: torch.dtype, device: torch.device | None = None
) -> Tensor:
    """Return a tensor ``(T,)``, made once, since a copy to a GPU waits for it."""
    return torch.tensor(values, dtype=dtype, device=device)
