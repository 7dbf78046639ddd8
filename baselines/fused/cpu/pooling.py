"""Averages of spikes over squares of 2x2, and their gradients, on the CPU."""

import numba
import torch
from torch import Tensor

from baselines.fused.cpu.kernel import PIECES, Array, Kernel, called, part
from baselines.fused.cpu.lazy_tensors import LazyTensor, channels_last


class PooledGradient(LazyTensor):
    """Gradient of spikes ``(T, N, C, H, W)`` that are averaged over squares of 2x2.

    Args:
        averages: gradient of the averages ``(T, N, C, H / 2, W / 2)``.
    """

    averages: Tensor

    @staticmethod
    def __new__(cls, averages: Tensor) -> "PooledGradient":
        """Return the tensor without computing its values."""
        steps, images, channels, height, width = averages.shape
        layout = channels_last((steps, images), (2 * height, 2 * width), channels)
        gradient: PooledGradient = Tensor._make_wrapper_subclass(cls, *layout, dtype=averages.dtype)
        gradient.averages = averages
        return gradient

    def __init__(self, averages: Tensor) -> None:
        super().__init__()

    def materialise(self) -> Tensor:
        """Return the gradient ``(T, N, C, H, W)``: a quarter for each spike of a square."""
        return (self.averages / 4).repeat_interleave(2, -1).repeat_interleave(2, -2)


def average(spikes: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the averages ``(T, N, C, H / 2, W / 2)`` of spikes, channels last in memory.

    Args:
        spikes: spikes ``(T, N, C, H, W)`` uint8, H and W even.
        dtype: floating-point dtype of the averages.
    """
    by_channel = spikes.movedim(2, -1).contiguous()
    steps, images, height, width, channels = by_channel.shape
    averages = torch.empty((steps, images, height // 2, width // 2, channels), dtype=dtype)
    _average(by_channel.view(-1, 2, width * channels).numpy(), channels, averages.view(-1).numpy())
    return averages.movedim(-1, 2)


@Kernel
def _average(rows: Array, channels: int, averages: Array) -> None:
    """Average spikes over squares of 2x2.

    Args:
        rows: pairs of rows of spikes ``(R, 2, W * C)`` uint8.
        channels: number of channels C.
        averages: averages ``(R * W / 2 * C,)``, flat, written.
    """
    for piece in numba.prange(PIECES):
        for row in part(piece, len(rows)):
            _average_rows(rows[row, 0], rows[row, 1], channels, row=row, averages=averages)


@called
def _average_rows(upper: Array, lower: Array, channels: int, row: int, averages: Array) -> None:
    """Average a pair of rows.

    Args:
        upper: spikes ``(W * C,)`` uint8.
        lower: spikes of the next row.
        channels: number of channels C.
        row: index of the pair.
        averages: averages, flat, written.
    """
    length = len(upper) // 2
    for column in range(length // channels):
        first, second = 2 * column * channels, (2 * column + 1) * channels
        start = row * length + column * channels
        target = averages[start : start + channels]
        quarter = averages.dtype.type(0.25)
        for i in range(channels):
            count = upper[first + i] + upper[second + i] + lower[first + i] + lower[second + i]
            target[i] = quarter * count
