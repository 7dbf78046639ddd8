"""Pixels that the papers' convolutions connect, as sparse matrices in CSR format."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Connections:
    """Input pixels and kernel taps of each output pixel, as the kernels take them.

    Attributes:
        taps: number of kernel taps.
        arrays: output pixel of each CSR row ``(Q,)``, CSR index pointer ``(Q + 1,)``, CSR column
            indices (input pixels) and CSR values (kernel taps), see :mod:`lookup_kernels`.
        ranks: CSR row of each output pixel, ``(Q,)``.
    """

    taps: int
    arrays: tuple[Any, Any, Any, Any]
    ranks: Any


@lru_cache
def connections(height: int, width: int, transposed: bool) -> Connections:
    """Return the connections of a 3x3 convolution with stride 2 and padding 1.

    Args:
        height: rows of the smaller map: the input if ``transposed``, else the output.
        width: columns of the smaller map.
        transposed: True for a transposed convolution (output padding 1), which doubles both.
    """
    i, j, down, right = np.meshgrid(
        *(np.arange(size) for size in (height, width, 3, 3)), indexing="ij"
    )
    row, column = 2 * i - 1 + down, 2 * j - 1 + right
    inside = (row >= 0) & (row < 2 * height) & (column >= 0) & (column < 2 * width)
    small, large = (i * width + j)[inside], (row * 2 * width + column)[inside]
    taps = (3 * down + right)[inside]
    outputs, sources = (large, small) if transposed else (small, large)
    # Pixels that use the same taps are next to each other: their tables then stay in the cache.
    used = np.zeros((outputs.max() + 1, 9), bool)
    used[outputs, taps] = True
    places = np.lexsort(used.T)
    ranks = np.argsort(places)
    order = np.lexsort((taps, ranks[outputs]))
    firsts = np.concatenate([[0], np.cumsum(used[places].sum(1))])
    return Connections(9, (places, firsts, sources[order], taps[order]), ranks)


@lru_cache
def one_to_one() -> Connections:
    """Return the connection of a linear layer: one pixel, one tap."""
    only = np.array([0])
    return Connections(1, (only, np.array([0, 1]), only, only), only)
