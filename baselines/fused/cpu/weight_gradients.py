"""Gradients of weights by table look-up on the CPU.

Takes tensors and calls the kernels in :mod:`weight_gradient_kernels`.
"""

import numpy as np
from torch import Tensor

from baselines.fused.cpu import weight_gradient_kernels
from baselines.fused.cpu.aligned_memory import padded
from baselines.fused.cpu.connectivity import (
    Connectivity,
    convolution_connectivity,
    linear_connectivity,
)
from baselines.fused.cpu.simd import CACHE_LINE, LANES
from baselines.fused.cpu.weight_gradient_kernels import ImageWords

# The work has this many parts, blocks of channels times groups of images, each with its own sums.
PARTS = 16


def convolution_gradients(
    spikes: Tensor, grad_currents: Tensor, transposed: bool, side: int = 3
) -> tuple[Tensor, Tensor]:
    """Return the gradients of weight and bias of :func:`lookup.convolve`.

    Args:
        spikes: uint8 spikes ``(R, C, H, W)``.
        grad_currents: gradient of the currents ``(R, O, H', W')``.
        transposed: True if the convolution doubles height and width.
        side: height and width K of the kernel, 3 or 4.

    Returns:
        Gradients of the weight ``(O, C, K, K)``, or ``(C, O, K, K)`` if ``transposed``, and of the
        bias ``(O,)``.
    """
    height, width = (spikes if transposed else grad_currents).shape[2:]
    connectivity = convolution_connectivity(height, width, transposed, side)
    grad_weight, grad_bias = _gradients(
        spikes.flatten(2).mT, grad_currents.flatten(2).mT, connectivity
    )
    grad_weight = grad_weight.unflatten(0, (side, side)).permute(2, 3, 0, 1)
    return grad_weight if transposed else grad_weight.transpose(0, 1), grad_bias


def linear_gradients(spikes: Tensor, grad_currents: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of weight and bias of :func:`lookup.connect`.

    Args:
        spikes: uint8 spikes ``(R, C)``.
        grad_currents: gradient of the currents ``(R, O)``.

    Returns:
        Gradients of the weight ``(O, C)``, with the outputs last in memory, and the bias ``(O,)``.
    """
    grad_weight, grad_bias = _gradients(
        spikes[:, None], grad_currents[:, None], linear_connectivity()
    )
    return grad_weight[0].mT, grad_bias


def _gradients(
    spikes: Tensor, grad_currents: Tensor, connectivity: Connectivity
) -> tuple[Tensor, Tensor]:
    """Return the gradients of weights ``(K, C, O)`` and bias ``(O,)``.

    Args:
        spikes: uint8 spikes ``(R, P, C)``.
        grad_currents: gradient of the currents ``(R, Q, O)``.
        connectivity: input pixels of each output pixel.
    """
    by_image, rows = padded(spikes.flatten(1), LANES), padded(grad_currents, LANES)
    words = np.empty((-(-len(by_image) // LANES), by_image.shape[1] + CACHE_LINE), np.uint32)
    weight_gradient_kernels.pack_images(by_image.numpy(), words)
    channels, outputs = spikes.shape[2], rows.shape[2]
    parts = max(1, min(PARTS // (outputs // LANES), len(words)))
    grad_weight = rows.new_empty((parts, connectivity.kernel_size * channels, outputs))
    grad_bias = rows.new_empty((parts, outputs))
    weight_gradient_kernels.add_gradients(
        ImageWords(words.reshape(-1), words.shape[1], channels),
        connectivity,
        rows.numpy(),
        grad_weight.numpy(),
        grad_bias.numpy(),
    )
    # PyTorch would copy the only summand.
    total = grad_weight.sum(0) if parts > 1 else grad_weight[0]
    total = total.unflatten(0, (connectivity.kernel_size, channels))
    return total[..., : grad_currents.shape[2]], grad_bias.sum(0)[: grad_currents.shape[2]]
