"""Gradients of weights by table look-up, compiled by Numba.

The gradient of a weight is a sum of the currents' gradients over the spikes that took part: four
images have 16 patterns of who did. The arrays are those of :mod:`lookup_kernels` else.
"""

from typing import Any

import numba
import numpy as np

from baselines.fused.cpu.lif_kernels import PIECES, Kernel
from baselines.fused.cpu.lookup_kernels import (
    GROUP,
    PATTERNS,
    TOGETHER,
    add_together,
    tabulate_four,
)
from baselines.fused.cpu.simd import CACHE_LINE, LANES, item, load, plus, spread, store, with_bit

# Of which the gradients are read at a time, as they lie in memory.
PIXELS = 8


@Kernel
def pack_images(spikes: Any, words: Any) -> None:
    """Words of spikes in LANES images, a bit for each, the first the lowest.

    Args:
        spikes: ``(R, L)`` uint8, 0 or 1, L a multiple of LANES.
        words: ``(F, S)`` uint32, F words for R images, of which S may be more than L; written.
    """
    images, length = spikes.shape
    flat, chunks = spikes.reshape(-1), length // LANES
    work = len(words) * chunks
    for piece in numba.prange(PIECES):
        none = spread(np.uint32(0))
        for at in range(piece * work // PIECES, (piece + 1) * work // PIECES):
            many, place, found = at // chunks * LANES, at % chunks * LANES, none
            for k in range(min(LANES, images - many)):
                found = with_bit(found, load(flat, (many + k) * length + place), k)
            store(words[at // chunks], place, found)


@numba.njit(inline="always")
def _read(
    gradients: Any, first: Any, images: Any, image: Any, pixels: Any, pixel: Any, near: Any
) -> Any:
    """Copy what LANES channels of a few pixels have in LANES images.

    Args:
        gradients: see :func:`add_gradients`.
        first: where in them those of the first pixel in the first image begin.
        images: of which there are gradients, perhaps fewer; those of the others are zero.
        image: from an image to the next.
        pixels: their number.
        pixel: from a pixel to the next.
        near: written: the images of the first pixel, those of the next, and so on. Pixels begin
            off the same few places in the processor's cache.

    Returns:
        From a pixel to the next in ``near``.
    """
    stride = LANES * LANES + CACHE_LINE // gradients.itemsize
    for k in range(LANES):
        for i in range(pixels):
            place = i * stride + k * LANES
            if k < images:
                store(near, place, load(gradients, first + k * image + i * pixel))
            else:
                near[place : place + LANES] = 0
    return stride


@Kernel
def add_gradients(
    words: Any,
    stride: Any,
    ranks: Any,
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
        words: ``(F, P, C)``, see :func:`pack_images`.
        stride: from the words of some images to those of the next.
        ranks: which of the places, see :mod:`lookup_kernels`, an output pixel is.
        firsts: see there.
        sources: see there.
        taps: see there.
        gradients: of the currents, ``(R * Q * B * LANES,)``.
        channels: C.
        kernel: K.
        sums: ``(S, K * C, B * LANES)``, for S parts of the images; written.
        totals: ``(S * B * LANES,)`` of zeros: sums of the currents' gradients, those of the bias.
    """
    splits, blocks, pixels = len(sums), sums.shape[2] // LANES, len(ranks)
    image, inputs, size = pixels * blocks * LANES, kernel * channels, PATTERNS * LANES
    images = len(gradients) // image
    count = (images + LANES - 1) // LANES
    flat = sums.reshape(-1)
    for piece in numba.prange(PIECES):
        table = np.empty(TOGETHER * size, sums.dtype)
        near = np.empty(PIXELS * (LANES * LANES + CACHE_LINE), sums.dtype)
        found = np.empty(inputs * LANES, sums.dtype)
        for at in range(piece * splits * blocks // PIECES, (piece + 1) * splits * blocks // PIECES):
            split, block = at // blocks, at % blocks
            found[:] = 0
            total = load(totals, at * LANES)
            for many in range(split * count // splits, (split + 1) * count // splits):
                for begin in range(0, pixels, PIXELS):
                    some = min(PIXELS, pixels - begin)
                    first = ((many * LANES * pixels + begin) * blocks + block) * LANES
                    left = images - many * LANES
                    of_pixel = _read(gradients, first, left, image, some, blocks * LANES, near)
                    for k in range(some):
                        for group in range(TOGETHER):
                            row = k * of_pixel + group * GROUP * LANES
                            tabulate_four(
                                load(near, row),
                                load(near, row + LANES),
                                load(near, row + 2 * LANES),
                                load(near, row + 3 * LANES),
                                table,
                                group * size,
                            )
                            total = plus(total, load(table, (group + 1) * size - LANES))
                        i = item(ranks, begin + k)
                        for connection in range(item(firsts, i), item(firsts, i + 1)):
                            word = many * stride + item(sources, connection) * channels
                            into = item(taps, connection) * channels * LANES
                            for channel in range(word, word + channels):
                                sum_before = load(found, into)
                                store(
                                    found,
                                    into,
                                    add_together(item(words, channel), table, 0, sum_before),
                                )
                                into += LANES
            store(totals, at * LANES, total)
            for k in range(inputs):
                place = ((split * inputs + k) * blocks + block) * LANES
                store(flat, place, load(found, k * LANES))
