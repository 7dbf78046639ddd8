"""Gradients of weights by table look-up, compiled by Numba.

The gradient of a weight is a sum of the currents' gradients over the spikes that took part: four
images have 16 patterns of who did. The arrays are those of :mod:`lookup_kernels` else.
"""

from typing import Any

import numba
import numpy as np

from baselines.neurons.compiled import PIECES, Kernel
from baselines.neurons.lanes import LANES, item, load, plus, prefetch, store
from baselines.neurons.lookup_kernels import GROUP, PATTERNS, tabulate_four

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
def _add_images(patterns: Any, rows: Any, channel: Any, count: Any, table: Any, total: Any) -> Any:
    """A total, and what ``count`` tables say of a channel's patterns."""
    for k in range(count):
        pattern = item(patterns, item(rows, k) + channel)
        total = plus(total, load(table, (k * PATTERNS + pattern) * LANES))
    return total


@numba.njit(inline="always")
def _add_channels(
    patterns: Any, rows: Any, count: Any, table: Any, channels: Any, sums: Any, into: Any
) -> None:
    """Add to the sums of all channels, from ``into``, what ``count`` tables say."""
    for channel in range(channels):
        total = load(sums, into)
        if count == TABLES:
            total = _add_images(patterns, rows, channel, TABLES, table, total)
        else:
            total = _add_images(patterns, rows, channel, count, table, total)
        store(sums, into, total)
        into += LANES


@numba.njit(inline="always")
def _row(four: Any, pixel: Any, pixels: Any, blocks: Any, block: Any) -> Any:
    """Where in memory LANES gradients begin, those of a pixel in the first of four images."""
    return ((four * GROUP * pixels + pixel) * blocks + block) * LANES


@Kernel
def add_gradients(
    patterns: Any,
    stride: Any,
    places: Any,
    firsts: Any,
    sources: Any,
    taps: Any,
    alike: Any,
    gradients: Any,
    channels: Any,
    kernel: Any,
    sums: Any,
    totals: Any,
) -> None:
    """Gradients of weights, and of biases.

    Pixels that use the same taps are taken one after the other, in four images, in the next four
    and so on: gradients are then read as they lie in memory, if there are many pixels.

    Args:
        patterns: ``(F, P, C)`` uint8, each of a channel in four images.
        stride: from the patterns of four images to the next.
        places: see :mod:`lookup_kernels`.
        firsts: see :mod:`lookup_kernels`.
        sources: see :mod:`lookup_kernels`.
        taps: see :mod:`lookup_kernels`.
        alike: pixels ``places[alike[c]]`` to ``places[alike[c + 1] - 1]`` use the same taps.
        gradients: of the currents, ``(4 * F * Q * B * LANES,)``.
        channels: C.
        kernel: K.
        sums: ``(S, K * C, B * LANES)``, for S parts of the images; written.
        totals: ``(S * B * LANES,)`` of zeros: sums of the currents' gradients, those of the bias.
    """
    splits, blocks = len(sums), sums.shape[2] // LANES
    image = len(places) * blocks * LANES
    fours = len(gradients) // (GROUP * image)
    flat, size = sums.reshape(-1), PATTERNS * LANES
    inputs = kernel * channels
    for piece in numba.prange(PIECES):
        table = np.empty(TABLES * size, sums.dtype)
        begins, connections = np.empty(TABLES, np.int64), np.empty(TABLES, np.int64)
        rows = np.empty(TABLES, np.int64)
        found = np.empty(inputs * LANES, sums.dtype)
        for at in range(piece * splits * blocks // PIECES, (piece + 1) * splits * blocks // PIECES):
            split, block = at // blocks, at % blocks
            begin, end = split * fours // splits, (split + 1) * fours // splits
            found[:] = 0
            for kind in range(len(alike) - 1):
                start, pixels = alike[kind], alike[kind + 1] - alike[kind]
                count = pixels * (end - begin)
                for pair in range(0, count, TABLES):
                    some = min(TABLES, count - pair)
                    for k in range(some):
                        four, i = begin + (pair + k) // pixels, start + (pair + k) % pixels
                        first = _row(four, item(places, i), len(places), blocks, block)
                        tabulate_four(
                            load(gradients, first),
                            load(gradients, first + image),
                            load(gradients, first + 2 * image),
                            load(gradients, first + 3 * image),
                            table,
                            k * size,
                        )
                        of_all = load(table, (k + 1) * size - LANES)
                        store(totals, at * LANES, plus(load(totals, at * LANES), of_all))
                        begins[k], connections[k] = four * stride, item(firsts, i)
                        ahead = pair + TABLES + k
                        if ahead < count:
                            four, i = begin + ahead // pixels, start + ahead % pixels
                            first = _row(four, item(places, i), len(places), blocks, block)
                            for number in range(GROUP):
                                prefetch(gradients, first + number * image)
                    for connection in range(item(firsts, start + 1) - item(firsts, start)):
                        for k in range(some):
                            source = item(sources, connections[k] + connection)
                            rows[k] = begins[k] + source * channels
                        tap = item(taps, connections[0] + connection)
                        into = tap * channels * LANES
                        _add_channels(patterns, rows, some, table, channels, found, into)
            for k in range(inputs):
                place = ((split * inputs + k) * blocks + block) * LANES
                store(flat, place, load(found, k * LANES))
