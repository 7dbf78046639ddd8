"""Spikes of one bit each on the CPU: what look-ups read and what neurons pass on to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.fused.cpu import packed_spike_kernels
from baselines.fused.cpu.aligned_memory import padded
from baselines.fused.cpu.lazy_tensors import LazyTensor, channels_last, materialised
from baselines.fused.cpu.packed_spike_kernels import SpikeWords
from baselines.fused.cpu.simd import CACHE_LINE, LANES

aten = torch.ops.aten
# Steps and images begin a cache line off their dense places: at multiples of a power of two they
# would all compete for the same few lines of the cache.
OFFSET = CACHE_LINE // np.dtype(np.uint32).itemsize


@dataclass(frozen=True)
class PackedSpikes:
    """Spikes of T steps, N images, P pixels and C channels, one bit each.

    Attributes:
        packed: the words as kernels take them; see :class:`SpikeWords`.
        channels: C; the bits of channels from C on are undefined.
    """

    packed: SpikeWords
    channels: int

    @classmethod
    def empty(cls, steps: int, images: int, pixels: int, channels: int) -> "PackedSpikes":
        """Return uninitialised spikes.

        Args:
            steps: number of time steps T.
            images: number of images N.
            pixels: number of pixels P.
            channels: number of channels C.
        """
        blocks = -(-channels // LANES)
        image_stride = blocks * pixels + OFFSET
        step_stride = images * image_stride + OFFSET
        words = np.empty(steps * step_stride, np.uint32)
        packed = SpikeWords(
            words=words,
            steps=steps,
            images=images,
            pixels=pixels,
            blocks=blocks,
            step_stride=step_stride,
            image_stride=image_stride,
        )
        return cls(packed, channels)

    @classmethod
    def pack(cls, spikes: Tensor) -> "PackedSpikes":
        """Pack uint8 spikes ``(T, N, P, C)``."""
        packed_spikes = cls.empty(*spikes.shape)
        packed_spike_kernels.pack(padded(spikes, LANES).numpy(), packed_spikes.packed)
        return packed_spikes

    @cached_property
    def unpacked(self) -> Tensor:
        """Spikes as uint8 ``(T, N, P, C)``."""
        packed = self.packed
        size = packed.steps, packed.images, packed.pixels, packed.blocks * LANES
        spikes = torch.empty(size, dtype=torch.uint8)
        packed_spike_kernels.unpack(packed, spikes.numpy())
        return spikes[..., : self.channels].contiguous()

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """Return ``sum_t w_t * s_t``, ``(N, P, C)``, for weights ``(T,)``."""
        packed = self.packed
        total = weights.new_empty((packed.images, packed.pixels, packed.blocks * LANES))
        packed_spike_kernels.weighted_sum(packed, weights.numpy(), total.numpy())
        return total[..., : self.channels].contiguous()


class PackedSpikeTensor(LazyTensor):
    """Packed spikes as a uint8 tensor ``(T, N, C, H, W)`` or ``(T * N, C, H, W)``.

    Its layout in memory is channels-last. Folding time into the batch keeps the spikes packed.

    Args:
        spikes: the packed spikes.
        leading: sizes of the axes of time and batch, ``(T, N)`` or ``(T * N,)``.
        size: height and width, ``(H, W)``.
    """

    spikes: PackedSpikes
    _leading: Sequence[int]
    _size: Sequence[int]

    @staticmethod
    def __new__(
        cls, spikes: PackedSpikes, leading: Sequence[int], size: Sequence[int]
    ) -> "PackedSpikeTensor":
        """Return the tensor without computing its values."""
        layout = channels_last(leading, size, spikes.channels)
        tensor: PackedSpikeTensor = Tensor._make_wrapper_subclass(cls, *layout, dtype=torch.uint8)
        tensor.spikes, tensor._leading, tensor._size = spikes, leading, size
        return tensor

    def __init__(self, spikes: PackedSpikes, leading: Sequence[int], size: Sequence[int]) -> None:
        super().__init__()

    def materialise(self) -> Tensor:
        """Return the spikes as uint8, of this tensor's shape ``(T, N, C, H, W)`` or folded."""
        unpacked = self.spikes.unpacked.unflatten(2, self._size).movedim(-1, 2)
        return unpacked if len(self._leading) > 1 else unpacked.flatten(0, 1)

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """Return ``sum_t w_t * s_t``, ``(N, C, H, W)``, for weights ``(T,)``."""
        return self.spikes.weighted_sum(weights).unflatten(1, self._size).movedim(-1, 1)

    def rearranged(self, function: Any, *args: Any, **kwargs: Any) -> LazyTensor | None:
        """Fold time into the batch, or unfold it; see the base class."""
        if function is aten.detach.default:
            return PackedSpikeTensor(self.spikes, self._leading, self._size)
        if function is aten.view.default:
            steps, images = self.spikes.packed.steps, self.spikes.packed.images
            for leading in ([steps * images], [steps, images]):
                if list(args[0]) == [*leading, self.spikes.channels, *self._size]:
                    return PackedSpikeTensor(self.spikes, leading, self._size)
        return None


def packed_spikes_of(spikes: Tensor, time_steps: int) -> PackedSpikes:
    """Return spikes ``(T * N, C, H, W)``, packed or uint8, as packed spikes of T time steps."""
    if isinstance(spikes, PackedSpikeTensor) and spikes.spikes.packed.steps == time_steps:
        return spikes.spikes
    by_pixel = materialised(spikes).flatten(2).mT
    return PackedSpikes.pack(by_pixel.unflatten(0, (time_steps, -1)))
