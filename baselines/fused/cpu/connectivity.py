"""Which pixels the papers' convolutions connect."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Connections:
    """Which output pixel is connected to which input pixels, as the kernels take it.

    Attributes:
        taps: of the kernel.
        arrays: places, firsts, sources and taps, see :mod:`lookup_kernels`.
        ranks: which of the places an output pixel is.
    """

    taps: int
    arrays: tuple[Any, Any, Any, Any]
    ranks: Any


@lru_cache
def connections(height: int, width: int, transposed: bool) -> Connections:
    """Those of the papers' convolutions: 3x3, stride 2, padding 1 (and output padding 1).

    Args:
        height: of the smaller map, which is the output unless ``transposed``.
        width: alike.
        transposed: whether the smaller map is the input.
    """
    i, j, down, right = np.meshgrid(
        *(np.arange(size) for size in (height, width, 3, 3)), indexing="ij"
    )
    row, column = 2 * i - 1 + down, 2 * j - 1 + right
    inside = (row >= 0) & (row < 2 * height) & (column >= 0) & (column < 2 * width)
    small, large = (i * width + j)[inside], (row * 2 * width + column)[inside]
    taps = (3 * down + right)[inside]
    outputs, sources = (large, small) if transposed else (small, large)
    # Pixels that use the same taps follow one another: their tables then stay in the cache.
    used = np.zeros((outputs.max() + 1, 9), bool)
    used[outputs, taps] = True
    places = np.lexsort(used.T)
    ranks = np.argsort(places)
    order = np.lexsort((taps, ranks[outputs]))
    firsts = np.concatenate([[0], np.cumsum(used[places].sum(1))])
    return Connections(9, (places, firsts, sources[order], taps[order]), ranks)


@lru_cache
def one_to_one() -> Connections:
    """That of a linear layer: one pixel, one tap."""
    only = np.array([0])
    return Connections(1, (only, np.array([0, 1]), only, only), only)
