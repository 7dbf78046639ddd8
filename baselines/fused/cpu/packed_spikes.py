"""Packed spikes on the CPU, one bit each: input of the look-ups and output of the neurons.

A uint32 word holds a pixel's spikes in LANES channels, the first channel in the lowest bit. Words
are ``(T, N, W, P)``: T time steps, N images, W words per pixel, P pixels. A cache line of padding
follows each image and each step, so that they do not compete for the same few places in the cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.fused.cpu import packed_spike_kernels
from baselines.fused.cpu.aligned_memory import padded
from baselines.fused.cpu.simd import CACHE_LINE, LANES
from baselines.fused.lazy_tensors import Deferred, channels_last, computed

aten = torch.ops.aten


@dataclass(frozen=True)
class Words:
    """Packed spikes of T steps, N images, P pixels and C channels.

    Attributes:
        steps: T.
        images: N.
        pixels: P.
        channels: C; bits of channels above C are undefined.
        array: flat uint32 array of the words, with padding.
    """

    steps: int
    images: int
    pixels: int
    channels: int
    array: Any

    @classmethod
    def empty(cls, steps: int, images: int, pixels: int, channels: int) -> "Words":
        """Return uninitialised words.

        Args:
            steps: T.
            images: N.
            pixels: P.
            channels: C.
        """
        unwritten = cls(steps, images, pixels, channels, None)
        array = np.empty(steps * unwritten.step_stride, np.uint32)
        return cls(steps, images, pixels, channels, array)

    @classmethod
    def packed(cls, spikes: Tensor) -> "Words":
        """Pack uint8 spikes ``(T, N, P, C)``."""
        words = cls.empty(*spikes.shape)
        by_word = padded(spikes, LANES).flatten(2)
        packed_spike_kernels.pack(by_word.numpy(), *words.layout, words.array)
        return words

    @property
    def of_pixel(self) -> int:
        """W, number of words per pixel."""
        return -(-self.channels // LANES)

    @property
    def image_stride(self) -> int:
        """Distance between the words of consecutive images."""
        return self.of_pixel * self.pixels + CACHE_LINE // np.dtype(np.uint32).itemsize

    @property
    def step_stride(self) -> int:
        """Distance between the words of consecutive time steps."""
        return self.images * self.image_stride + CACHE_LINE // np.dtype(np.uint32).itemsize

    @property
    def layout(self) -> tuple[int, int, int]:
        """P and the strides of steps and images, which kernels take with the array."""
        return self.pixels, self.step_stride, self.image_stride

    @cached_property
    def unpacked(self) -> Tensor:
        """Spikes ``(T, N, P, C)`` as uint8."""
        length = self.pixels * self.of_pixel * LANES
        spikes = torch.empty((self.steps, self.images, length), dtype=torch.uint8)
        packed_spike_kernels.unpack(self.array, *self.layout, spikes.numpy())
        return self._by_channel(spikes)

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """Return ``sum_t w_t * s_t``, ``(N, P, C)``, for weights ``(T,)``."""
        total = weights.new_empty((self.images, self.pixels * self.of_pixel * LANES))
        packed_spike_kernels.weighted_sum(self.array, *self.layout, weights.numpy(), total.numpy())
        return self._by_channel(total)

    def _by_channel(self, numbers: Tensor) -> Tensor:
        """Convert ``(..., P * W * LANES)`` to ``(..., P, C)``."""
        return numbers.unflatten(-1, (self.pixels, -1))[..., : self.channels].contiguous()


class Bits(Deferred):
    """Packed spikes ``(T, N, C, H, W)`` or ``(T * N, C, H, W)``, unpacked to uint8 when needed.

    The channels are last in memory.
    """

    words: Words
    _before: Sequence[int]
    _map: Sequence[int]

    @staticmethod
    def __new__(cls, words: Words, before: Sequence[int], size: Sequence[int]) -> "Bits":
        """Return the spikes of words, with axes ``(T, N)`` or ``(T * N,)`` and size ``(H, W)``."""
        layout = channels_last(before, size, words.channels)
        spikes: Bits = Tensor._make_wrapper_subclass(cls, *layout, dtype=torch.uint8)
        spikes.words, spikes._before, spikes._map = words, before, size
        return spikes

    def __init__(self, words: Words, before: Sequence[int], size: Sequence[int]) -> None:
        super().__init__()

    def computed(self) -> Tensor:
        """Unpack to uint8 spikes ``(T, N, C, H, W)`` or ``(T * N, C, H, W)``."""
        unpacked = self.words.unpacked.unflatten(2, self._map).movedim(-1, 2)
        return unpacked if len(self._before) > 1 else unpacked.flatten(0, 1)

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """Return ``sum_t w_t * s_t``, ``(N, C, H, W)``, for weights ``(T,)``."""
        return self.words.weighted_sum(weights).unflatten(1, self._map).movedim(-1, 1)

    def rearranged(self, function: Any, *args: Any, **kwargs: Any) -> Deferred | None:
        """Return the packed result of a view that joins or splits time and batch, else None.

        Args:
            function: PyTorch operation.
            *args: arguments after the spikes.
            **kwargs: keyword arguments.
        """
        if function is aten.detach.default:
            return Bits(self.words, self._before, self._map)
        if function is aten.view.default:
            of_image = [self.words.channels, *self._map]
            folded = [self.words.steps * self.words.images]
            for before in (folded, [self.words.steps, self.words.images]):
                if list(args[0]) == [*before, *of_image]:
                    return Bits(self.words, before, self._map)
        return None


def words_of(spikes: Tensor, time_steps: int) -> Words:
    """Return the words of spikes ``(T * N, C, H, W)``, packed or uint8, for T time steps."""
    if isinstance(spikes, Bits) and spikes.words.steps == time_steps:
        return spikes.words
    laid_out = computed(spikes).flatten(2).mT
    return Words.packed(laid_out.unflatten(0, (time_steps, -1)))
