"""Compiled kernels that sum weight gradients by table look-up.

The gradient of a weight is the sum of the currents' gradients over the spikes that took part. Here
a word holds the spikes of one input in 32 images, and a table the sums of the gradients of four
images under each of the 16 patterns of which of them fired; see :mod:`lookup_kernels` for the idea.
"""

from typing import NamedTuple

import numba
import numpy as np

from baselines.fused.cpu.connectivity import Connectivity
from baselines.fused.cpu.kernel import PIECES, Array, Kernel, inlined, part
from baselines.fused.cpu.lookup_kernels import (
    GROUP,
    GROUPS_PER_WORD,
    TABLE,
    WORD_TABLES,
    look_up_word,
    tabulate_group,
)
from baselines.fused.cpu.simd import (
    CACHE_LINE,
    LANES,
    Vector,
    broadcast,
    load,
    load_scalar,
    set_bit,
    store,
)

# Pixels whose gradients are read together, in the order in which they lie in memory.
PIXELS = 8
# Distance from a pixel's gradients to the next's in the scratch copy: pixels begin a cache line
# (in float64 two) off the multiples of a power of two that would compete for the same cache lines.
PIXEL_STRIDE = LANES * LANES + CACHE_LINE // np.dtype(np.float32).itemsize


class ImageWords(NamedTuple):
    """Packed spikes of R images, one bit per image, 32 images per word.

    Attributes:
        words: word of images f * 32 to f * 32 + 31, input pixel p and channel c at
            ``f * stride + p * channels + c``; uint32, flat.
        stride: distance from the words of 32 images to the next 32 images'.
        channels: number of input channels C.
    """

    words: Array
    stride: int
    channels: int


class Window(NamedTuple):
    """Gradients of currents that are read together: 32 images, a few pixels, 32 channels.

    Attributes:
        first: index of the gradients of the first pixel in the first image.
        images: number of images from the first one on; if below 32, the others are zero.
        pixels: number of pixels.
        image_stride: distance from an image to the next.
        pixel_stride: distance from a pixel to the next.
    """

    first: int
    images: int
    pixels: int
    image_stride: int
    pixel_stride: int


@Kernel
def pack_images(spikes: Array, words: Array) -> None:
    """Pack uint8 spikes, one bit per image, the first image lowest.

    Args:
        spikes: spikes ``(R, L)`` uint8, 0 or 1, L a multiple of LANES.
        words: words ``(F, S)`` uint32 for F = R / 32 rounded up and S at least L; written.
    """
    images, length = spikes.shape
    flat, chunks = spikes.reshape(-1), length // LANES
    for piece in numba.prange(PIECES):
        zero = broadcast(np.uint32(0))
        for index in part(piece, len(words) * chunks):
            first, place, packed = index // chunks * LANES, index % chunks * LANES, zero
            for k in range(min(LANES, images - first)):
                packed = set_bit(packed, load(flat, (first + k) * length + place), k)
            store(words[index // chunks], place, packed)


@Kernel
def add_gradients(
    spikes: ImageWords,
    connectivity: Connectivity,
    grad_currents: Array,
    grad_weight: Array,
    grad_bias: Array,
) -> None:
    """Compute the gradients of weights and biases, as sums over S parts of the images.

    Args:
        spikes: input spikes.
        connectivity: input pixels of each output pixel.
        grad_currents: gradients of the currents ``(R, Q, B * LANES)``.
        grad_weight: gradients of the weights ``(S, K * C, B * LANES)``, written.
        grad_bias: gradients of the biases ``(S, B * LANES)``, written.
    """
    images, pixels, channels = grad_currents.shape
    flat, weights, biases = (
        grad_currents.reshape(-1),
        grad_weight.reshape(-1),
        grad_bias.reshape(-1),
    )
    parts, inputs, outputs = grad_weight.shape
    blocks, groups = outputs // LANES, (images + LANES - 1) // LANES
    for piece in numba.prange(PIECES):
        table = np.empty(WORD_TABLES, flat.dtype)
        scratch = np.empty(PIXELS * PIXEL_STRIDE, flat.dtype)
        sums = np.empty(inputs * LANES, flat.dtype)
        for index in part(piece, parts * blocks):
            split, block = index // blocks, index % blocks
            sums[:] = 0
            total = load(sums, 0)
            for group in range(split * groups // parts, (split + 1) * groups // parts):
                for begin in range(0, pixels, PIXELS):
                    image, count = group * LANES, min(PIXELS, pixels - begin)
                    first = (image * pixels + begin) * channels + block * LANES
                    window = Window(first, images - image, count, pixels * channels, channels)
                    _copy(flat, window, scratch)
                    for k in range(count):
                        total = _tabulate_pixel(scratch, k * PIXEL_STRIDE, table, total)
                        row = load_scalar(connectivity.rank, begin + k)
                        _add_pixel(spikes, connectivity, group, row=row, table=table, sums=sums)
            store(biases, index * LANES, total)
            for k in range(inputs):
                target = ((split * inputs + k) * blocks + block) * LANES
                store(weights, target, load(sums, k * LANES))


@inlined
def _copy(grad_currents: Array, window: Window, scratch: Array) -> None:
    """Copy the gradients of a window.

    Args:
        grad_currents: gradients of the currents, flat.
        window: the gradients to copy.
        scratch: copy ``(PIXELS, PIXEL_STRIDE)``, flat: ``(LANES images, LANES channels)`` per
            pixel, written.
    """
    for k in range(LANES):
        for pixel in range(window.pixels):
            source = window.first + k * window.image_stride + pixel * window.pixel_stride
            target = pixel * PIXEL_STRIDE + k * LANES
            if k < window.images:
                store(scratch, target, load(grad_currents, source))
            else:
                scratch[target : target + LANES] = 0


@inlined
def _tabulate_pixel(scratch: Array, first: int, table: Array, total: Vector) -> Vector:
    """Write the tables of a pixel's gradients, and return ``total`` plus their sum.

    Args:
        scratch: array with the gradients ``(LANES images, LANES channels)`` from ``first`` on.
        first: index of the first gradient.
        table: tables ``(GROUPS_PER_WORD, PATTERNS, LANES)``, flat, written.
        total: sum of the gradients so far.
    """
    for group in range(GROUPS_PER_WORD):
        source = first + group * GROUP * LANES
        tabulate_group(scratch, source, LANES, table, group * TABLE)
        # The last pattern is the sum of all four images.
        total += load(table, (group + 1) * TABLE - LANES)
    return total


@inlined
def _add_pixel(
    spikes: ImageWords, connectivity: Connectivity, group: int, row: int, table: Array, sums: Array
) -> None:
    """Add the gradients of an output pixel to the gradients of the weights that it uses.

    Args:
        spikes: input spikes.
        connectivity: input pixels of each output pixel.
        group: index of the 32 images.
        row: row of the output pixel; see :class:`Connectivity`.
        table: tables of the pixel's gradients.
        sums: gradients ``(K * C, LANES)``, flat, added to.
    """
    words, indices, taps, channels = (
        spikes.words,
        connectivity.indices,
        connectivity.taps,
        spikes.channels,
    )
    for connection in range(
        load_scalar(connectivity.indptr, row), load_scalar(connectivity.indptr, row + 1)
    ):
        word = group * spikes.stride + load_scalar(indices, connection) * channels
        target = load_scalar(taps, connection) * channels * LANES
        for _ in range(channels):
            summand = look_up_word(load_scalar(words, word), table, 0)
            store(sums, target, load(sums, target) + summand)
            word += 1
            target += LANES
