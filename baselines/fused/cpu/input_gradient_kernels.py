"""Numba kernel for convolutions of numbers that are no spikes: gradients of a convolution's input.

The arrays are as in :mod:`lookup_kernels`, with numbers in place of spikes and weights in place of
tables.
"""

from typing import Any

import numba
import numpy as np

from baselines.fused.cpu.lif_kernels import PIECES, Kernel
from baselines.fused.cpu.simd import (
    LANES,
    add_product,
    item,
    load,
    spread,
    store,
    stream,
    streamed,
)

# Images whose sums are in registers at the same time: two 512-bit registers for each.
IMAGES = 8


@numba.njit(inline="always")
def _add(numbers: Any, at: Any, weights: Any, total: Any) -> Any:
    """Return ``total + numbers[at] * weights`` for LANES totals and weights."""
    return add_product(total, spread(item(numbers, at)), weights)


@numba.njit(inline="always")
def _sum(
    near: Any,
    image: Any,
    base: Any,
    inputs: Any,
    sources: Any,
    taps: Any,
    first: Any,
    last: Any,
    weights: Any,
    block: Any,
    none: Any,
    totals: Any,
) -> None:
    """Compute LANES output channels of a pixel for IMAGES images.

    Args:
        near: numbers of IMAGES images, flat, the channels of a pixel next to each other.
        image: distance between consecutive images in ``near``.
        base: input pixel with which the images in ``near`` begin.
        inputs: C.
        sources: CSR column indices: input pixel of each connection.
        taps: CSR values: kernel tap of each connection.
        first: index of the pixel's first connection.
        last: index after the pixel's last connection.
        weights: ``(B, K, C, LANES)``, flat.
        block: index in ``weights`` at which the output channels' weights begin.
        none: zeros in every lane.
        totals: ``(IMAGES * LANES,)``, written.
    """
    a, b, c, d, e, f, g, h = none, none, none, none, none, none, none, none
    for connection in range(first, last):
        begin = (item(sources, connection) - base) * inputs
        weight = block + item(taps, connection) * inputs * LANES
        for i in range(begin, begin + inputs):
            lanes = load(weights, weight)
            a = _add(near, i, lanes, a)
            b = _add(near, i + image, lanes, b)
            c = _add(near, i + 2 * image, lanes, c)
            d = _add(near, i + 3 * image, lanes, d)
            e = _add(near, i + 4 * image, lanes, e)
            f = _add(near, i + 5 * image, lanes, f)
            g = _add(near, i + 6 * image, lanes, g)
            h = _add(near, i + 7 * image, lanes, h)
            weight += LANES
    store(totals, 0, a)
    store(totals, LANES, b)
    store(totals, 2 * LANES, c)
    store(totals, 3 * LANES, d)
    store(totals, 4 * LANES, e)
    store(totals, 5 * LANES, f)
    store(totals, 6 * LANES, g)
    store(totals, 7 * LANES, h)


@Kernel
def convolve(
    numbers: Any,
    pixels: Any,
    bands: Any,
    image: Any,
    ranks: Any,
    firsts: Any,
    sources: Any,
    taps: Any,
    weights: Any,
    results: Any,
) -> None:
    """Compute all output pixels and channels.

    Args:
        numbers: ``(R * P * C,)``, C a multiple of LANES.
        pixels: P.
        bands: ``(S, 4)``, bands of output pixels that are computed together: first output pixel,
            last output pixel + 1, first input pixel that they need, and last such pixel + 1.
        image: distance between consecutive images in the buffer that holds a band's numbers.
        ranks: ``(Q,)``, CSR row of each output pixel.
        firsts: ``(Q + 1,)``, CSR index pointer.
        sources: CSR column indices: input pixel of each connection.
        taps: CSR values: kernel tap of each connection.
        weights: ``(B, K, C, LANES)``.
        results: ``(R * Q * B * LANES,)``, written with streaming stores; must begin at a multiple
            of CACHE_LINE.
    """
    blocks, kernel, inputs = weights.shape[:3]
    flat, outputs, channels = weights.reshape(-1), len(ranks), blocks * LANES
    count = len(numbers) // (pixels * inputs)
    tiles = (count + IMAGES - 1) // IMAGES
    work = blocks * tiles * len(bands)
    for piece in numba.prange(PIECES):
        near = np.zeros(IMAGES * image, numbers.dtype)
        totals = np.empty(IMAGES * LANES, numbers.dtype)
        none = spread(numbers.dtype.type(0))
        for at in range(piece * work // PIECES, (piece + 1) * work // PIECES):
            band, block = bands[at % len(bands)], at // (tiles * len(bands))
            first_image = at // len(bands) % tiles * IMAGES
            some = min(IMAGES, count - first_image)
            for k in range(some):
                source = ((first_image + k) * pixels + band[2]) * inputs
                for i in range(0, (band[3] - band[2]) * inputs, LANES):
                    store(near, k * image + i, load(numbers, source + i))
            for pixel in range(band[0], band[1]):
                rank = item(ranks, pixel)
                _sum(
                    near,
                    image,
                    band[2],
                    inputs,
                    sources,
                    taps,
                    item(firsts, rank),
                    item(firsts, rank + 1),
                    flat,
                    block * kernel * inputs * LANES,
                    none,
                    totals,
                )
                place = (first_image * outputs + pixel) * channels + block * LANES
                for k in range(some):
                    stream(results, place + k * outputs * channels, load(totals, k * LANES))
        streamed()
