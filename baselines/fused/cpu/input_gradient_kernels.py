"""Compiled kernel of dense convolutions, for the gradients of their inputs."""

from typing import NamedTuple

import numba
import numpy as np

from baselines.fused.cpu.connectivity import Connectivity
from baselines.fused.cpu.kernel import PIECES, Array, Kernel, inlined, part
from baselines.fused.cpu.simd import (
    LANES,
    Vector,
    broadcast,
    load,
    load_scalar,
    multiply_add,
    store,
    store_fence,
    store_nontemporal,
)

# Images whose sums are kept in registers together: two registers of 512 bits per image.
IMAGES = 8


class Bands(NamedTuple):
    """Ranges of output pixels that are computed together, so that their inputs stay in the cache.

    Attributes:
        ranges: first output pixel, end, first input pixel needed, end, ``(S, 4)`` int64.
        stride: distance from an image to the next where the inputs of a band are copied to.
    """

    ranges: Array
    stride: int


class Window(NamedTuple):
    """Inputs of a band, for IMAGES images.

    Attributes:
        numbers: inputs, flat: of image k, input pixel p and channel c at
            ``k * stride + (p - first_pixel) * channels + c``.
        stride: distance from an image to the next.
        first_pixel: first input pixel that the band needs.
        channels: number of input channels C.
    """

    numbers: Array
    stride: int
    first_pixel: int
    channels: int


@Kernel
def convolve(
    inputs: Array, bands: Bands, connectivity: Connectivity, weights: Array, outputs: Array
) -> None:
    """Compute a convolution without bias.

    Args:
        inputs: inputs ``(R, P, C)``, C a multiple of LANES.
        bands: ranges of output pixels.
        connectivity: input pixels of each output pixel.
        weights: weights ``(B, K, C, LANES)``.
        outputs: outputs ``(R, Q, B * LANES)``, written past the caches; it must begin at a multiple
            of CACHE_LINE.
    """
    images, pixels, channels = outputs.shape
    input_channels = inputs.shape[2]
    flat, taps_weights, targets = inputs.reshape(-1), weights.reshape(-1), outputs.reshape(-1)
    groups, ranges, image_stride = (images + IMAGES - 1) // IMAGES, bands.ranges, bands.stride
    for piece in numba.prange(PIECES):
        scratch = np.zeros(IMAGES * image_stride, flat.dtype)
        totals = np.empty(IMAGES * LANES, flat.dtype)
        for index in part(piece, channels // LANES * groups * len(ranges)):
            band, block = ranges[index % len(ranges)], index // (groups * len(ranges))
            image = index // len(ranges) % groups * IMAGES
            count, length = min(IMAGES, images - image), (band[3] - band[2]) * input_channels
            for k in range(count):
                source = ((image + k) * inputs.shape[1] + band[2]) * input_channels
                for i in range(0, length, LANES):
                    store(scratch, k * image_stride + i, load(flat, source + i))
            window = Window(scratch, image_stride, band[2], input_channels)
            first_weight = block * connectivity.kernel_size * input_channels * LANES
            for pixel in range(band[0], band[1]):
                row = load_scalar(connectivity.rank, pixel)
                _sum_pixel(window, connectivity, row, taps_weights, first_weight, totals=totals)
                target = (image * pixels + pixel) * channels + block * LANES
                for k in range(count):
                    total = load(totals, k * LANES)
                    store_nontemporal(targets, target + k * pixels * channels, total)
        store_fence()


@inlined
def _sum_pixel(
    window: Window,
    connectivity: Connectivity,
    row: int,
    weights: Array,
    first_weight: int,
    totals: Array,
) -> None:
    """Compute 32 channels of an output pixel in IMAGES images.

    Args:
        window: inputs.
        connectivity: input pixels of each output pixel.
        row: row of the output pixel; see :class:`Connectivity`.
        weights: weights, flat.
        first_weight: index of the weights ``(K, C, LANES)`` of the 32 channels.
        totals: outputs ``(IMAGES, LANES)``, flat, written.
    """
    numbers, stride, channels = window.numbers, window.stride, window.channels
    zero = broadcast(numbers.dtype.type(0))
    a, b, c, d, e, f, g, h = zero, zero, zero, zero, zero, zero, zero, zero
    for connection in range(
        load_scalar(connectivity.indptr, row), load_scalar(connectivity.indptr, row + 1)
    ):
        begin = (load_scalar(connectivity.indices, connection) - window.first_pixel) * channels
        weight = first_weight + load_scalar(connectivity.taps, connection) * channels * LANES
        for i in range(begin, begin + channels):
            vector = load(weights, weight)
            a = _add_product(a, numbers, i, vector)
            b = _add_product(b, numbers, i + stride, vector)
            c = _add_product(c, numbers, i + 2 * stride, vector)
            d = _add_product(d, numbers, i + 3 * stride, vector)
            e = _add_product(e, numbers, i + 4 * stride, vector)
            f = _add_product(f, numbers, i + 5 * stride, vector)
            g = _add_product(g, numbers, i + 6 * stride, vector)
            h = _add_product(h, numbers, i + 7 * stride, vector)
            weight += LANES
    store(totals, 0, a)
    store(totals, LANES, b)
    store(totals, 2 * LANES, c)
    store(totals, 3 * LANES, d)
    store(totals, 4 * LANES, e)
    store(totals, 5 * LANES, f)
    store(totals, 6 * LANES, g)
    store(totals, 7 * LANES, h)


@inlined
def _add_product(total: Vector, numbers: Array, index: int, weights: Vector) -> Vector:
    """Return ``total + numbers[index] * weights``."""
    return multiply_add(total, broadcast(load_scalar(numbers, index)), weights)
