"""Gradients of weights by table look-up, compiled by Numba.

The gradient of a weight is a sum of the currents' gradients over the spikes that took part: four
images have 16 patterns of who did. The arrays are those of :mod:`lookup_kernels` else.
"""

from typing import Any

import numba
import numpy as np

from baselines.neurons.compiled import PIECES, Kernel
from baselines.neurons.lanes import LANES, item, load, minus, plus, store
from baselines.neurons.lookup_kernels import GROUP, PATTERNS

# Tables that are used side by side: 16 KiB in float32.
TABLES = 8


@Kernel
def pack_images(spikes: Any, patterns: Any) -> None:
    """Patterns of spikes in four images.

    Args:
        spikes: ``(F, GROUP, P * C)`` uint8, 0 or 1, of four images at a time.
        patterns: ``(F, S)`` uint8, of which S may be more; written.
    """
    fours, _, length = spikes.shape
    for four in numba.prange(fours):
        written, images = patterns[four], spikes[four]
        one, two, three, last = images[0], images[1], images[2], images[3]
        for i in range(length):
            written[i] = one[i] | two[i] << 1 | three[i] << 2 | last[i] << 3


@numba.njit(inline="always")
def _tabulate_images(gradients: Any, first: Any, stride: Any, table: Any, start: Any) -> None:
    """A table of sums over the gradients of four images, the first at ``first``."""
    one, two = load(gradients, first), load(gradients, first + stride)
    three, four = load(gradients, first + 2 * stride), load(gradients, first + 3 * stride)
    store(table, start, minus(one, one))
    store(table, start + LANES, one)
    store(table, start + 2 * LANES, two)
    store(table, start + 3 * LANES, plus(one, two))
    for bit, added in ((4, three), (8, four)):
        for pattern in range(bit):
            total = plus(load(table, start + pattern * LANES), added)
            store(table, start + (pattern + bit) * LANES, total)


@numba.njit(inline="always")
def _add_images(
    patterns: Any, row: Any, stride: Any, count: Any, table: Any, start: Any, total: Any
) -> Any:
    """A total, and what ``count`` tables say of a channel's patterns."""
    for i in range(count):
        pattern = item(patterns, row + i * stride)
        total = plus(total, load(table, start + (i * PATTERNS + pattern) * LANES))
    return total


@Kernel
def add_gradients(
    patterns: Any,
    stride: Any,
    places: Any,
    firsts: Any,
    sources: Any,
    taps: Any,
    gradients: Any,
    channels: Any,
    kernel: Any,
    sums: Any,
    totals: Any,
) -> None:
    """Gradients of weights, and of biases.

    Args:
        patterns: ``(F, P, C)`` uint8, each of a channel in four images.
        stride: from the patterns of four images to the next.
        places: see :mod:`lookup_kernels`.
        firsts: see :mod:`lookup_kernels`.
        sources: see :mod:`lookup_kernels`.
        taps: see :mod:`lookup_kernels`.
        gradients: of the currents, ``(4 * F * Q * B * LANES,)``.
        channels: C.
        kernel: K.
        sums: ``(S, B, K * C * LANES)`` of zeros, for S parts of the images; written.
        totals: ``(S * B * LANES,)`` of zeros: sums of the currents' gradients, those of the bias.
    """
    splits, blocks = sums.shape[:2]
    outputs = len(places)
    image = outputs * blocks * LANES
    fours = len(gradients) // (GROUP * image)
    flat, size = sums.reshape(-1), PATTERNS * LANES
    for piece in numba.prange(PIECES):
        table = np.empty(TABLES * size, sums.dtype)
        for at in range(piece * splits * blocks // PIECES, (piece + 1) * splits * blocks // PIECES):
            split, block = at // blocks, at % blocks
            end = (split + 1) * fours // splits
            for four in range(split * fours // splits, end, TABLES):
                some = min(TABLES, end - four)
                for i in range(outputs):
                    place = item(places, i) * blocks * LANES + block * LANES
                    for k in range(some):
                        first = (four + k) * GROUP * image + place
                        _tabulate_images(gradients, first, image, table, k * size)
                        of_all = load(table, (k + 1) * size - LANES)
                        store(totals, at * LANES, plus(load(totals, at * LANES), of_all))
                    for connection in range(item(firsts, i), item(firsts, i + 1)):
                        row = four * stride + item(sources, connection) * channels
                        into = (at * kernel + item(taps, connection)) * channels * LANES
                        for channel in range(channels):
                            total = load(flat, into)
                            if some == TABLES:
                                total = _add_images(
                                    patterns, row + channel, stride, TABLES, table, 0, total
                                )
                            else:
                                total = _add_images(
                                    patterns, row + channel, stride, some, table, 0, total
                                )
                            store(flat, into, total)
                            into += LANES
