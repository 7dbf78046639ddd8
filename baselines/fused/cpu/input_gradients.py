"""Gradients of a convolution's input on the CPU.

Takes tensors and calls the kernel in :mod:`input_gradient_kernels`.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from baselines.fused.cpu import input_gradient_kernels
from baselines.fused.cpu.aligned_memory import empty_aligned
from baselines.fused.cpu.connectivity import Connectivity, convolution_connectivity
from baselines.fused.cpu.input_gradient_kernels import IMAGES, Bands
from baselines.fused.cpu.kernel import Array
from baselines.fused.cpu.simd import CACHE_LINE, LANES

# Bytes of the inputs of a band: they stay in a core's second cache, together with the weights.
BAND_BYTES = 2**18


def are_faster(grad_output: Tensor, weight: Tensor, transposed: bool) -> bool:
    """Return True if :func:`convolution_gradient` takes these tensors and is faster than PyTorch.

    Its sums fill the registers of AVX-512; with fewer registers they would be kept in memory.

    Args:
        grad_output: gradient of the output ``(R, O, H', W')``.
        weight: weights ``(O, C, 3, 3)``, or ``(C, O, 3, 3)`` if ``transposed``.
        transposed: True if the convolution doubles height and width.
    """
    channels = weight.shape[0] if transposed else weight.shape[1]
    return (
        weight.dtype == torch.float32
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and channels % LANES == grad_output.shape[1] % LANES == 0
    )


def convolution_gradient(grad_output: Tensor, weight: Tensor, transposed: bool) -> Tensor:
    """Return the gradient ``(R, C, H, W)`` of a convolution's input.

    Args:
        grad_output: gradient of the output ``(R, O, H', W')``, channels last.
        weight: weights ``(O, C, 3, 3)``, or ``(C, O, 3, 3)`` if ``transposed``.
        transposed: True if the convolution doubles height and width instead of halving them.
    """
    images, inputs, height, width = grad_output.shape
    if transposed:
        height, width = height // 2, width // 2
    # The input gradient of a transposed convolution is a strided convolution, and vice versa.
    connectivity = convolution_connectivity(height, width, not transposed)
    axes = (2, 3, 1, 0) if transposed else (2, 3, 0, 1)
    by_tap = weight.permute(axes).flatten(0, 1)
    by_block = by_tap.unflatten(2, (-1, LANES)).permute(2, 0, 1, 3).contiguous()
    size = (height, width) if transposed else (2 * height, 2 * width)
    grad_input = empty_aligned((images, *size, by_tap.shape[2]), weight.dtype)
    input_gradient_kernels.convolve(
        grad_output.movedim(1, -1).flatten(1, 2).numpy(),
        _bands(height, width, not transposed, inputs, weight.itemsize),
        connectivity,
        by_block.numpy(),
        grad_input.flatten(1, 2).numpy(),
    )
    return grad_input.movedim(-1, 1)


@lru_cache
def _bands(height: int, width: int, transposed: bool, channels: int, itemsize: int) -> Bands:
    """Return the fewest bands of rows of output pixels whose inputs take BAND_BYTES each.

    Args:
        height: height of the smaller map.
        width: width of the smaller map.
        transposed: True if the smaller map is the input.
        channels: number of input channels.
        itemsize: bytes per number.
    """
    connectivity = convolution_connectivity(height, width, transposed)
    rows = connectivity.rank.reshape((2 * height, -1) if transposed else (height, -1))
    for count in range(1, len(rows) + 1):
        ranges: list[tuple[int, ...]] = []
        for ranks in np.array_split(rows, count):
            needed = np.concatenate([_inputs_of(connectivity, rank) for rank in ranks.flat])
            begin = ranges[-1][1] if ranges else 0
            ranges.append((begin, begin + ranks.size, needed.min(), needed.max() + 1))
        pixels = int(max(last - first for *_, first, last in ranges))
        if pixels * channels * itemsize * IMAGES <= BAND_BYTES:
            break
    # Images begin off the multiples of a power of two that compete for the same cache lines.
    return Bands(np.array(ranges), pixels * channels + CACHE_LINE // itemsize)


def _inputs_of(connectivity: Connectivity, row: int) -> Array:
    """Return the input pixels of a row, ``(connections,)`` int64."""
    return connectivity.indices[connectivity.indptr[row] : connectivity.indptr[row + 1]]
