"""Sums of a linear layer's weights over spikes by table look-up, compiled by Numba.

As in :mod:`lookup_kernels`, but each weight belongs to one pixel only, so that a table is used by
the rows alone: it is made where it is used, and never leaves the core's cache.
"""

from typing import Any

import numba
import numpy as np

from baselines.neurons.compiled import PIECES, Kernel
from baselines.neurons.lanes import LANES, bfloat16, item, load, store, stream, streamed
from baselines.neurons.lookup_kernels import (
    GROUP,
    PATTERNS,
    TOGETHER,
    add_together,
    tabulate_four,
)

# That use a table before the next one is made; their totals take 32 KiB in float32.
ROWS = 256


@numba.njit(inline="always")
def _load(numbers: Any, at: Any, rounded: Any) -> Any:
    lanes = load(numbers, at)
    return bfloat16(lanes) if rounded else lanes


@Kernel
def connect(words: Any, stride: Any, weights: Any, bias: Any, rounded: Any, currents: Any) -> None:
    """Currents of a linear layer: bias, and the weights of the spikes.

    Args:
        words: of R rows, see :mod:`bits`.
        stride: from the words of one row to those of the next.
        weights: ``(W * LANES, B * LANES)``.
        bias: ``(B * LANES,)``.
        rounded: whether weights, bias and currents are rounded to bfloat16; sums are not.
        currents: ``(R * B * LANES,)``, written past the caches: see :func:`lookup_kernels.add_up`.
    """
    inputs, channels = weights.shape
    flat, size = weights.reshape(-1), PATTERNS * LANES
    rows, blocks = len(currents) // channels, channels // LANES
    parts = (rows + ROWS - 1) // ROWS
    work = blocks * parts
    for piece in numba.prange(PIECES):
        table = np.empty(TOGETHER * size, weights.dtype)
        totals = np.empty(ROWS * LANES, weights.dtype)
        for at in range(piece * work // PIECES, (piece + 1) * work // PIECES):
            channel, begin = at // parts * LANES, at % parts * ROWS
            some = min(ROWS, rows - begin)
            first = _load(bias, channel, rounded)
            for k in range(some):
                store(totals, k * LANES, first)
            for group in range(0, inputs // GROUP, TOGETHER):
                for k in range(TOGETHER):
                    weight = (group + k) * GROUP * channels + channel
                    tabulate_four(
                        _load(flat, weight, rounded),
                        _load(flat, weight + channels, rounded),
                        _load(flat, weight + 2 * channels, rounded),
                        _load(flat, weight + 3 * channels, rounded),
                        table,
                        k * size,
                    )
                word = begin * stride + group // TOGETHER
                for k in range(0, some * LANES, LANES):
                    store(totals, k, add_together(item(words, word), table, 0, load(totals, k)))
                    word += stride
            for k in range(some):
                current = load(totals, k * LANES)
                if rounded:
                    current = bfloat16(current)
                stream(currents, (begin + k) * channels + channel, current)
        streamed()
