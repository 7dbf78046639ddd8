"""Gradients of weights by table look-up on the CPU: interface of :mod:`weight_gradient_kernels`."""

import numpy as np
from torch import Tensor

from baselines.fused.cpu import weight_gradient_kernels
from baselines.fused.cpu.aligned_memory import padded
from baselines.fused.cpu.connectivity import Connections, connections, one_to_one
from baselines.fused.cpu.simd import CACHE_LINE, LANES

# Upper limit of the parts of the work (image parts times channel blocks), summed separately.
PARTS = 16


def convolution_gradients(
    spikes: Tensor, gradient: Tensor, transposed: bool
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of weight and bias of :func:`lookup.convolve`.

    Args:
        spikes: ``(R, C, H, W)`` uint8, 0 or 1.
        gradient: gradients of the currents, ``(R, O, H', W')``.
        transposed: True for a transposed convolution.

    Returns:
        Gradients of the weight, ``(O, C, 3, 3)`` or ``(C, O, 3, 3)`` if ``transposed``, and of the
        bias, ``(O,)``.
    """
    height, width = (spikes if transposed else gradient).shape[2:]
    joined = connections(height, width, transposed)
    of_weight, of_bias = _gradients(spikes.flatten(2).mT, gradient.flatten(2).mT, joined)
    of_weight = of_weight.unflatten(0, (3, 3)).permute(2, 3, 0, 1)
    return of_weight if transposed else of_weight.transpose(0, 1), of_bias


def linear_gradients(spikes: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradients of weight and bias of :func:`lookup.connect`.

    Args:
        spikes: ``(R, C)`` uint8, 0 or 1.
        gradient: gradients of the currents, ``(R, O)``.

    Returns:
        Gradients of the weight ``(O, C)``, outputs last in memory, and of the bias ``(O,)``.
    """
    of_weight, of_bias = _gradients(spikes[:, None], gradient[:, None], one_to_one())
    return of_weight[0].mT, of_bias


def _gradients(spikes: Tensor, gradient: Tensor, joined: Connections) -> tuple[Tensor, Tensor]:
    """Compute the gradients of weights ``(K, C, O)`` and bias ``(O,)``.

    Args:
        spikes: ``(R, P, C)`` uint8, 0 or 1.
        gradient: gradients of the currents, ``(R, Q, O)``.
        joined: connections of the pixels.
    """
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
    # Avoids the copy that `sum` makes of a single part.
    found = sums.sum(0) if splits > 1 else sums[0]
    found = found.unflatten(0, (joined.taps, channels))
    outputs = gradient.shape[2]
    return found[..., :outputs], totals.sum(0)[:outputs]
