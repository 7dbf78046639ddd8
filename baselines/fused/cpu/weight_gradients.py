"""Gradients of weights by table look-up on the CPU: tensors in, :mod:`gradient_kernels` within."""

import numpy as np
from torch import Tensor

from baselines.fused.cpu import weight_gradient_kernels
from baselines.fused.cpu.aligned_memory import padded
from baselines.fused.cpu.connectivity import Connections, connections, one_to_one
from baselines.fused.cpu.simd import CACHE_LINE, LANES

# Of the work, each with sums of its own.
PARTS = 16


def convolution_gradients(
    spikes: Tensor, gradient: Tensor, transposed: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of weight and bias of :func:`lookup.convolve`, laid out as PyTorch does.

    Args:
        spikes: 0 or 1, in bytes, ``(R, C, H, W)``.
        gradient: of the currents, ``(R, O, H', W')``.
        transposed: as there.
    """
    height, width = (spikes if transposed else gradient).shape[2:]
    joined = connections(height, width, transposed)
    of_weight, of_bias = _gradients(spikes.flatten(2).mT, gradient.flatten(2).mT, joined)
    of_weight = of_weight.unflatten(0, (3, 3)).permute(2, 3, 0, 1)
    return of_weight if transposed else of_weight.transpose(0, 1), of_bias


def linear_gradients(spikes: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weight and bias of :func:`lookup.connect`, the weight's with the outputs last.

    Args:
        spikes: 0 or 1, in bytes, ``(R, C)``.
        gradient: of the currents, ``(R, O)``.
    """
    of_weight, of_bias = _gradients(spikes[:, None], gradient[:, None], one_to_one())
    return of_weight[0].mT, of_bias


def _gradients(spikes: Tensor, gradient: Tensor, joined: Connections) -> tuple[Tensor, Tensor]:
    """Those of weights ``(K, C, O)`` and bias, for spikes ``(R, P, C)`` and ``(R, Q, O)``."""
    flat, rows = padded(spikes.flatten(1), LANES), padded(gradient, LANES)
    words = np.empty((-(-len(flat) // LANES), flat.shape[1] + CACHE_LINE), np.uint32)
    weight_gradient_kernels.pack_images(flat.numpy(), words)
    channels, blocks = spikes.shape[2], rows.shape[2] // LANES
    splits = max(1, min(PARTS // blocks, len(words)))
    sums = rows.new_empty((splits, joined.taps * channels, blocks * LANES))
    totals = rows.new_zeros((splits, blocks * LANES))
    weight_gradient_kernels.add_gradients(
        words.reshape(-1),
        words.shape[1],
        joined.ranks,
        *joined.arrays[1:],
        rows.view(-1).numpy(),
        channels,
        joined.taps,
        sums.numpy(),
        totals.view(-1).numpy(),
    )
    # PyTorch copies what has one summand.
    found = sums.sum(0) if splits > 1 else sums[0]
    found = found.unflatten(0, (joined.taps, channels))
    outputs = gradient.shape[2]
    return found[..., :outputs], totals.sum(0)[:outputs]
