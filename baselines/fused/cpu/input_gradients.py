"""Gradients of what a convolution takes in, on the CPU: tensors in, :mod:`dense_kernels` within."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.fused.cpu import input_gradient_kernels
from baselines.fused.cpu.aligned_memory import unwritten
from baselines.fused.cpu.connectivity import connections
from baselines.fused.cpu.input_gradient_kernels import IMAGES
from baselines.fused.cpu.simd import CACHE_LINE, LANES

# Bytes of what a band's sums are computed from: they stay in a core's second cache, beside weights.
NEAR = 2**18


def are_faster(gradient: Tensor, weight: Tensor, transposed: bool) -> bool:
    """Whether :func:`convolution_gradient` takes these, and less time for them than PyTorch.

    The sums fill the registers of AVX-512; with fewer they would be kept in memory.
    """
    channels = weight.shape[0] if transposed else weight.shape[1]
    return (
        weight.dtype == torch.float32
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and channels % LANES == gradient.shape[1] % LANES == 0
    )


def convolution_gradient(gradient: Tensor, weight: Tensor, transposed: bool) -> Tensor:
    """The gradient ``(R, C, H, W)`` of the input of one of the papers' convolutions.

    Args:
        gradient: of its output, ``(R, O, H', W')`` with the channels last.
        weight: ``(O, C, 3, 3)``, or ``(C, O, 3, 3)`` if ``transposed``.
        transposed: whether it doubles height and width and does not halve them.
    """
    images, inputs, height, width = gradient.shape
    if transposed:
        height, width = height // 2, width // 2
    # The operation is the other one of the two: what doubled now halves.
    joined = connections(height, width, not transposed)
    bands, stride = _bands(height, width, not transposed, inputs * weight.itemsize)
    axes = (2, 3, 1, 0) if transposed else (2, 3, 0, 1)
    by_tap = weight.permute(axes).flatten(0, 1)
    by_block = by_tap.unflatten(2, (-1, LANES)).permute(2, 0, 1, 3).contiguous()
    size = (height, width) if transposed else (2 * height, 2 * width)
    results = unwritten((images, *size, by_tap.shape[2]), weight.dtype)
    input_gradient_kernels.convolve(
        gradient.movedim(1, -1).view(-1).numpy(),
        gradient[0, 0].numel(),
        bands,
        stride * inputs + CACHE_LINE // weight.itemsize,
        joined.ranks,
        *joined.arrays[1:],
        by_block.numpy(),
        results.view(-1).numpy(),
    )
    return results.movedim(-1, 1)


@lru_cache
def _bands(height: int, width: int, transposed: bool, pixel: int) -> tuple[Any, int]:
    """Rows of output pixels, as many as NEAR allows, and the most pixels that any of them needs.

    Args:
        height: see :func:`connections`.
        width: see there.
        transposed: see there.
        pixel: bytes of a pixel.
    """
    joined = connections(height, width, transposed)
    _, firsts, sources, _ = joined.arrays
    rows = joined.ranks.reshape((2 * height, -1) if transposed else (height, -1))
    for count in range(1, len(rows) + 1):
        bands: list[tuple[int, ...]] = []
        for ranks in np.array_split(rows, count):
            needed = np.concatenate([sources[firsts[r] : firsts[r + 1]] for r in ranks.flat])
            begin = bands[-1][1] if bands else 0
            bands.append((begin, begin + ranks.size, needed.min(), needed.max() + 1))
        found = np.array(bands)
        most = int((found[:, 3] - found[:, 2]).max())
        if most * pixel * IMAGES <= NEAR:
            break
    return found, most
