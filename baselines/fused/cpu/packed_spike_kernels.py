"""Compiled kernels on packed spikes: one bit per spike, 32 channels per word."""

from typing import NamedTuple

import numba

from baselines.fused.cpu.kernel import Array, Kernel, inlined
from baselines.fused.cpu.simd import (
    LANES,
    broadcast,
    from_bitmask,
    is_nonzero,
    load,
    load_scalar,
    select,
    store,
    store_scalar,
    to_bitmask,
    to_uint8,
)


class SpikeWords(NamedTuple):
    """Packed spikes of T time steps, N images and P pixels, as kernels take them.

    The word of step t, image n, block w of 32 channels and pixel p is
    ``words[t * step_stride + n * image_stride + w * P + p]``; its lowest bit is the first channel.

    Attributes:
        words: all words, flat, uint32.
        steps: T.
        images: N.
        pixels: P.
        blocks: number of words per pixel W.
        step_stride: distance from a step to the next.
        image_stride: distance from an image to the next.
    """

    words: Array
    steps: int
    images: int
    pixels: int
    blocks: int
    step_stride: int
    image_stride: int


@Kernel
def pack(spikes: Array, packed: SpikeWords) -> None:
    """Pack uint8 spikes.

    Args:
        spikes: spikes ``(T, N, P, W * LANES)`` uint8, 0 or 1.
        packed: words, written.
    """
    flat, words = spikes.reshape(-1), packed.words
    for row in numba.prange(packed.steps * packed.images):
        start = _first_word(packed, row)
        for pixel in range(packed.pixels):
            for block in range(packed.blocks):
                source = ((row * packed.pixels + pixel) * packed.blocks + block) * LANES
                word = start + block * packed.pixels + pixel
                store_scalar(words, word, to_bitmask(is_nonzero(load(flat, source))))


@Kernel
def unpack(packed: SpikeWords, spikes: Array) -> None:
    """Unpack spikes to uint8.

    Args:
        packed: words to read.
        spikes: spikes ``(T, N, P, W * LANES)`` uint8, written.
    """
    flat, words = spikes.reshape(-1), packed.words
    for row in numba.prange(packed.steps * packed.images):
        start = _first_word(packed, row)
        for pixel in range(packed.pixels):
            for block in range(packed.blocks):
                target = ((row * packed.pixels + pixel) * packed.blocks + block) * LANES
                word = load_scalar(words, start + block * packed.pixels + pixel)
                store(flat, target, to_uint8(from_bitmask(word)))


@inlined
def _first_word(packed: SpikeWords, row: int) -> int:
    """Return where the words of a row begin, of the T * N rows of steps and images."""
    return row // packed.images * packed.step_stride + row % packed.images * packed.image_stride


@Kernel
def weighted_sum(packed: SpikeWords, weights: Array, total: Array) -> None:
    """Compute ``total = sum_t weights_t * spikes_t``.

    Args:
        packed: words of the spikes.
        weights: weights ``(T,)``.
        total: sums ``(N, P, W * LANES)``, written.
    """
    flat, words = total.reshape(-1), packed.words
    for image in numba.prange(packed.images):
        zero = broadcast(weights[0] - weights[0])
        for pixel in range(packed.pixels):
            for block in range(packed.blocks):
                word, summed = image * packed.image_stride + block * packed.pixels + pixel, zero
                for t in range(len(weights)):
                    fired = from_bitmask(load_scalar(words, word + t * packed.step_stride))
                    summed += select(fired, broadcast(load_scalar(weights, t)), zero)
                target = ((image * packed.pixels + pixel) * packed.blocks + block) * LANES
                store(flat, target, summed)
