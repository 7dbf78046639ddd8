"""Numba kernels that pack, unpack and sum packed spikes; see :mod:`packed_spikes`."""

from typing import Any

import numba

from baselines.fused.cpu.lif_kernels import Kernel
from baselines.fused.cpu.simd import (
    LANES,
    bits,
    item,
    lanes_of,
    load,
    nonzero,
    ones,
    plus,
    spread,
    store,
    where,
)


@Kernel
def pack(spikes: Any, pixels: Any, step_stride: Any, image_stride: Any, words: Any) -> None:
    """Pack uint8 spikes into words.

    Args:
        spikes: ``(T, N, P * W * LANES)`` uint8, 0 or 1.
        pixels: P.
        step_stride: distance between the words of consecutive time steps.
        image_stride: distance between the words of consecutive images.
        words: packed spikes ``(T, N, W, P)``, flat uint32 words, written.
    """
    steps, images, length = spikes.shape
    flat, of_pixel = spikes.reshape(-1), length // pixels // LANES
    for row in numba.prange(steps * images):
        start = row // images * step_stride + row % images * image_stride
        for pixel in range(pixels):
            for word in range(of_pixel):
                at = row * length + (pixel * of_pixel + word) * LANES
                words[start + word * pixels + pixel] = bits(nonzero(load(flat, at)))


@Kernel
def unpack(words: Any, pixels: Any, step_stride: Any, image_stride: Any, spikes: Any) -> None:
    """Unpack words into uint8 spikes.

    Args:
        words: packed spikes ``(T, N, W, P)``, flat uint32 words.
        pixels: P.
        step_stride: distance between the words of consecutive time steps.
        image_stride: distance between the words of consecutive images.
        spikes: ``(T, N, P * W * LANES)`` uint8, written.
    """
    steps, images, length = spikes.shape
    flat, of_pixel = spikes.reshape(-1), length // pixels // LANES
    for row in numba.prange(steps * images):
        start = row // images * step_stride + row % images * image_stride
        for pixel in range(pixels):
            for word in range(of_pixel):
                at = row * length + (pixel * of_pixel + word) * LANES
                store(flat, at, ones(lanes_of(item(words, start + word * pixels + pixel))))


@Kernel
def weighted_sum(
    words: Any, pixels: Any, step_stride: Any, image_stride: Any, weights: Any, total: Any
) -> None:
    """Compute ``total = sum_t weights_t * spikes_t``.

    Args:
        words: packed spikes ``(T, N, W, P)``, flat uint32 words.
        pixels: P.
        step_stride: distance between the words of consecutive time steps.
        image_stride: distance between the words of consecutive images.
        weights: ``(T,)``.
        total: ``(N, P * W * LANES)``, written.
    """
    images, length = total.shape
    flat, of_pixel = total.reshape(-1), length // pixels // LANES
    for image in numba.prange(images):
        none = spread(weights[0] - weights[0])
        for pixel in range(pixels):
            for word in range(of_pixel):
                place, summed = image * image_stride + word * pixels + pixel, none
                for t in range(len(weights)):
                    fired = lanes_of(item(words, place + t * step_stride))
                    summed = plus(summed, where(fired, spread(item(weights, t)), none))
                store(flat, image * length + (pixel * of_pixel + word) * LANES, summed)
