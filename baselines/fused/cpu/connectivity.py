"""Sparse connectivity of the papers' convolutions, as the kernels read it."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from baselines.fused.cpu.kernel import Array


class Connectivity(NamedTuple):
    """Connections from input pixels to Q output pixels: a sparse matrix in CSR format.

    A row is an output pixel. Rows that use the same taps follow one another, so that the tables of
    these taps stay in the cache; ``pixel_order`` and ``rank`` translate between rows and pixels.

    Attributes:
        indptr: first connection of each row, ``(Q + 1,)`` int64.
        indices: input pixel of each connection, int64.
        taps: kernel tap of each connection, from 0 to ``kernel_size - 1``, int64.
        pixel_order: output pixel of each row, ``(Q,)`` int64.
        rank: row of each output pixel, ``(Q,)`` int64.
        kernel_size: number of taps K.
    """

    indptr: Array
    indices: Array
    taps: Array
    pixel_order: Array
    rank: Array
    kernel_size: int


@lru_cache
def convolution_connectivity(
    height: int, width: int, transposed: bool, side: int = 3
) -> Connectivity:
    """Return the connectivity of a convolution of stride 2 and padding 1.

    A transposed one doubles height and width: for 3x3, the output padding is 1, for 4x4 it is 0.

    Args:
        height: height of the smaller map, which is the output unless ``transposed``.
        width: width of the smaller map.
        transposed: True if the convolution is transposed, so that the smaller map is the input.
        side: height and width of the kernel, 3 or 4.
    """
    i, j, down, right = np.meshgrid(
        *(np.arange(size) for size in (height, width, side, side)), indexing="ij"
    )
    row, column = 2 * i - 1 + down, 2 * j - 1 + right
    inside = (row >= 0) & (row < 2 * height) & (column >= 0) & (column < 2 * width)
    small, large = (i * width + j)[inside], (row * 2 * width + column)[inside]
    taps = (side * down + right)[inside]
    outputs, inputs = (large, small) if transposed else (small, large)
    uses_tap = np.zeros((outputs.max() + 1, side**2), bool)
    uses_tap[outputs, taps] = True
    pixel_order = np.lexsort(uses_tap.T)
    rank = np.argsort(pixel_order)
    order = np.lexsort((taps, rank[outputs]))
    indptr = np.concatenate([[0], np.cumsum(uses_tap[pixel_order].sum(1))])
    return Connectivity(
        indptr=indptr,
        indices=inputs[order],
        taps=taps[order],
        pixel_order=pixel_order,
        rank=rank,
        kernel_size=side**2,
    )


@lru_cache
def linear_connectivity() -> Connectivity:
    """Return the connectivity of a linear layer: a convolution of one pixel and one tap."""
    zero = np.array([0])
    return Connectivity(
        indptr=np.array([0, 1]), indices=zero, taps=zero, pixel_order=zero, rank=zero, kernel_size=1
    )
