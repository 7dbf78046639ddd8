"""Weighted sums over time and inner products of spikes in bytes on the CPU, with gradients."""

from typing import Any

import torch
from torch import Tensor

from baselines.fused.cpu import spike_product_kernels
from baselines.fused.cpu.aligned_memory import padded
from baselines.fused.cpu.lazy_tensors import LowRankSteps, bytes_of, materialised
from baselines.fused.cpu.simd import LANES


def weighted_sums(spikes: Tensor, weights: Tensor) -> Tensor:
    """Return ``sum_t w[t, n, g] * s[t, n]``, ``(N, G, C, ...)``, with gradients.

    Args:
        spikes: spikes s ``(T, N, C, ...)``, :class:`ByteSpikes` or uint8.
        weights: weights w ``(T, N, G)``.
    """
    return _WeightedSums.apply(spikes, weights)


def inner_products(spikes: Tensor, maps: Tensor) -> Tensor:
    """Return ``<s[t, n], m[g]>``, ``(T, N, G)``, with gradients.

    Args:
        spikes: spikes s ``(T, N, C, ...)``, :class:`ByteSpikes` or uint8.
        maps: maps m ``(G, C, ...)``.
    """
    return _InnerProducts.apply(spikes, maps)


class _WeightedSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spikes: Tensor, weights: Tensor) -> Tensor:
        fired = materialised(bytes_of(spikes))
        ctx.save_for_backward(fired, weights)
        ctx.dtype = spikes.dtype
        return _sums(fired, weights)

    @staticmethod
    def backward(ctx: Any, grad_sums: Tensor) -> tuple[Tensor, Tensor]:
        fired, weights = ctx.saved_tensors
        return LowRankSteps(weights, grad_sums, ctx.dtype), _products(fired, grad_sums)


class _InnerProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, spikes: Tensor, maps: Tensor) -> Tensor:
        fired = materialised(bytes_of(spikes))
        ctx.save_for_backward(fired, maps)
        ctx.dtype = spikes.dtype
        return _products(fired, maps[None])

    @staticmethod
    def backward(ctx: Any, grad_products: Tensor) -> tuple[Tensor, Tensor]:
        fired, maps = ctx.saved_tensors
        of_images = maps.expand(grad_products.shape[1], *maps.shape)
        grad_spikes = LowRankSteps(grad_products, of_images, ctx.dtype)
        return grad_spikes, _sums(fired, grad_products).sum(0)


def _sums(spikes: Tensor, weights: Tensor) -> Tensor:
    """Return sums ``(N, G, C, ...)`` of uint8 spikes ``(T, N, C, ...)``; weights ``(T, N, G)``."""
    rows, size = _rows(spikes), spikes[0, 0].movedim(0, -1).shape
    sums = weights.new_empty((*weights.shape[1:], rows.shape[2]))
    factors = weights.detach().contiguous()
    spike_product_kernels.weighted_sums(rows.numpy(), factors.numpy(), sums.numpy())
    return sums.unflatten(2, size).movedim(-1, 2)


def _products(spikes: Tensor, maps: Tensor) -> Tensor:
    """Return inner products ``(T, N, G)`` of uint8 spikes with maps.

    Args:
        spikes: spikes ``(T, N, C, ...)``.
        maps: maps ``(N, G, C, ...)``, or ``(1, G, C, ...)`` if they are the same for all images.
    """
    rows, numbers = (padded(_rows(each), LANES) for each in (spikes, maps.detach()))
    parts = maps.new_empty((*rows.shape[:2], maps.shape[1], LANES))
    spike_product_kernels.inner_products(rows.numpy(), numbers.numpy(), parts.numpy())
    return parts.sum(-1)


def _rows(tensor: Tensor) -> Tensor:
    """Return ``(A, B, C, ...)`` as ``(A, B, F)``, channels last; copies only if they are not."""
    return tensor.movedim(2, -1).flatten(2).contiguous()
