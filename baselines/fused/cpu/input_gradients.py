"""Gradients of a convolution's input on the CPU: interface of :mod:`input_gradient_kernels`."""

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

# Bytes of a band's inputs: they fit a core's second-level cache together with the weights.
NEAR = 2**18


def are_faster(gradient: Tensor, weight: Tensor, transposed: bool) -> bool:
    """Return True if :func:`convolution_gradient` takes the operands and is faster than PyTorch.

    Its sums fill the registers of AVX-512; on other processors they would be kept in memory.

    Args:
        gradient: gradients of the output, ``(R, O, H', W')``.
        weight: ``(O, C, 3, 3)``, or ``(C, O, 3, 3)`` if ``transposed``.
        transposed: True for the gradient of a transposed convolution.
    """
    channels = weight.shape[0] if transposed else weight.shape[1]
    return (
        weight.dtype == torch.float32
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and channels % LANES == gradient.shape[1] % LANES == 0
    )


def convolution_gradient(gradient: Tensor, weight: Tensor, transposed: bool) -> Tensor:
    """Compute the gradients ``(R, C, H, W)`` of the input of a 3x3 convolution with stride 2.

    Args:
        gradient: gradients of the output, ``(R, O, H', W')``, channels last in memory.
        weight: ``(O, C, 3, 3)``, or ``(C, O, 3, 3)`` if ``transposed``.
        transposed: True for a transposed convolution, which doubles height and width.
    """
    images, inputs, height, width = gradient.shape
    if transposed:
        height, width = height // 2, width // 2
    # The gradient of a convolution is a transposed convolution, and the reverse.
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
    """Return bands of whole rows of output pixels, and the most input pixels that any band needs.

    Args:
        height: rows of the smaller map.
        width: columns of the smaller map.
        transposed: True if the larger map is the output.
        pixel: bytes per input pixel.

    Returns:
        Bands ``(S, 4)`` as large as NEAR allows, see :func:`input_gradient_kernels.convolve`, and
        the largest number of input pixels of a band.
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
