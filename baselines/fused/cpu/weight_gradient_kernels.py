"""Numba kernels for gradients of weights by table look-up.

The gradient of a weight is the sum of the currents' gradients over the spikes that it multiplied.
Here the four binary inputs of a table (see :mod:`lookup_kernels`) are the spikes of four images,
and the table holds sums of the four images' gradients. The other arrays are as in
:mod:`lookup_kernels`.
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

# Pixels whose gradients are read at a time, in memory order.
PIXELS = 8


@Kernel
def pack_images(spikes: Any, words: Any) -> None:
    """Pack the spikes of LANES images into each word, the first image in the lowest bit.

    Args:
        spikes: ``(R, L)`` uint8, 0 or 1, L a multiple of LANES.
        words: ``(F, S)`` uint32 with ``F = ceil(R / LANES)`` and S at least L, written.
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
    """Copy the gradients of LANES channels of a few pixels in LANES images to a buffer.

    Args:
        gradients: gradients of the currents, flat; see :func:`add_gradients`.
        first: index in ``gradients`` of the first pixel in the first image.
        images: number of images from the first on; the buffer is zero for images after the last.
        image: distance between consecutive images in ``gradients``.
        pixels: number of pixels.
        pixel: distance between consecutive pixels in ``gradients``.
        near: buffer, written: ``(LANES images, LANES)`` for the first pixel, then the next. A cache
            line of padding keeps pixels from competing for the same few places in the cache.

    Returns:
        Distance between consecutive pixels in ``near``.
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
    """Compute the gradients of weights and biases, as partial sums over S parts of the images.

    Args:
        words: ``(F, P, C)``, flat, see :func:`pack_images`.
        stride: distance between the words of consecutive groups of LANES images.
        ranks: ``(Q,)``, CSR row of each output pixel.
        firsts: ``(Q + 1,)``, CSR index pointer.
        sources: CSR column indices: input pixel of each connection.
        taps: CSR values: kernel tap of each connection.
        gradients: gradients of the currents, ``(R * Q * B * LANES,)``.
        channels: C.
        kernel: K.
        sums: ``(S, K * C, B * LANES)``, gradients of the weights, written.
        totals: ``(S * B * LANES,)`` of zeros, to which the gradients of the biases are added.
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
