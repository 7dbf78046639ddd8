"""Spikes of neurons that fire with a period, and the synapses that they drive, on the CPU.

Takes tensors and calls the kernels in :mod:`periodic_kernels`.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.fused.cpu import periodic_kernels
from baselines.fused.cpu.aligned_memory import empty_aligned
from baselines.fused.cpu.kernel import Array
from baselines.fused.cpu.lazy_tensors import ByteSpikes, LazyTensor, channels_last
from baselines.fused.cpu.periodic_kernels import PARTS, FiringNeurons, Windows
from baselines.fused.cpu.pooling import average

aten = torch.ops.aten
# Periods are bytes.
LONGEST = 254
# A quarter of the spikes of a square is their average.
QUARTER = 0.25


class PeriodicSpikes(ByteSpikes):
    """Spikes of neurons that fire at the multiples of their period, of which one byte is stored.

    Args:
        periods: period of each neuron, 0 if it is silent, ``(N, C, ...)`` uint8.
        time_steps: number of time steps T, at most LONGEST.
        dtype: floating-point dtype of this tensor.
        folded: True for the shape ``(T * N, C, ...)`` instead of ``(T, N, C, ...)``.
    """

    periods: Tensor
    time_steps: int

    @staticmethod
    def __new__(
        cls, periods: Tensor, time_steps: int, dtype: torch.dtype, folded: bool = False
    ) -> "PeriodicSpikes":
        """Return the tensor without computing its values."""
        size, strides = (time_steps, *periods.shape), (periods.numel(), *periods.stride())
        if folded:
            size, strides = (time_steps * len(periods), *periods.shape[1:]), periods.stride()
        spikes: PeriodicSpikes = Tensor._make_wrapper_subclass(cls, size, strides, dtype=dtype)
        spikes.periods, spikes.time_steps = periods, time_steps
        return spikes

    def __init__(
        self, periods: Tensor, time_steps: int, dtype: torch.dtype, folded: bool = False
    ) -> None:
        super().__init__(periods, dtype)

    @property
    def uint8(self) -> Tensor:  # type: ignore[override]
        """The spikes as uint8, ``(T, N, C, ...)`` or folded, of this tensor's shape."""
        steps = torch.arange(1, self.time_steps + 1, dtype=torch.uint8)
        periods = self.periods.masked_fill(self.periods == 0, LONGEST + 1)
        multiples = steps.view(-1, *[1] * periods.dim()) % periods == 0
        return multiples.to(torch.uint8).reshape(self.shape)

    def rearranged(self, function: Any, *args: Any, **kwargs: Any) -> LazyTensor | None:
        """Fold time into the batch, or unfold it; see the base class."""
        if function is aten.detach.default:
            folded = self.dim() == self.periods.dim()
            return PeriodicSpikes(self.periods, self.time_steps, self.dtype, folded)
        if function is aten.view.default:
            images, *size = self.periods.shape
            for folded, leading in ((True, [self.time_steps * images]), (False, [-1, images])):
                leading = [self.time_steps if n == -1 else n for n in leading]
                if list(args[0]) == [*leading, *size]:
                    return PeriodicSpikes(self.periods, self.time_steps, self.dtype, folded)
        return super().rearranged(function, *args, **kwargs)


class PooledSpikes(LazyTensor):
    """Periodic spikes averaged over squares of 2x2, which synapses read unpooled.

    Args:
        spikes: spikes ``(T, N, C, H, W)``, H and W even.
        folded: True for the shape ``(T * N, C, H / 2, W / 2)`` instead of ``(T, N, ...)``.
    """

    spikes: PeriodicSpikes

    @staticmethod
    def __new__(cls, spikes: PeriodicSpikes, folded: bool = False) -> "PooledSpikes":
        """Return the tensor without computing its values."""
        leading, (channels, height, width) = spikes.shape[:2], spikes.shape[2:]
        layout = channels_last(
            (leading.numel(),) if folded else leading, (height // 2, width // 2), channels
        )
        pooled: PooledSpikes = Tensor._make_wrapper_subclass(cls, *layout, dtype=spikes.dtype)
        pooled.spikes = spikes
        return pooled

    def __init__(self, spikes: PeriodicSpikes, folded: bool = False) -> None:
        super().__init__()

    def materialise(self) -> Tensor:
        """Return the averages of this tensor's shape."""
        return average(self.spikes.uint8, self.dtype).reshape(self.shape)

    def rearranged(self, function: Any, *args: Any, **kwargs: Any) -> LazyTensor | None:
        """Fold time into the batch, or unfold it; see the base class."""
        if function is aten.detach.default:
            return PooledSpikes(self.spikes, self.shape[:-3] != self.spikes.shape[:-3])
        if function is aten.view.default and list(args[0])[-3:] == list(self.shape[-3:]):
            leading = torch.Size(args[0][:-3])
            if leading == self.spikes.shape[:2]:
                return PooledSpikes(self.spikes)
            if list(leading) == [self.spikes.shape[:2].numel()]:
                return PooledSpikes(self.spikes, folded=True)
        return None


def connect(spikes: PeriodicSpikes, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the currents ``(T * N, O)`` of a linear layer.

    Args:
        spikes: spikes of C neurons.
        weight: weights ``(O, C)``, O a multiple of LANES; fastest with the outputs last in memory.
        bias: bias ``(O,)``.
    """
    periods = spikes.periods
    currents = empty_aligned((spikes.time_steps, len(periods), len(bias)), weight.dtype)
    weights, biases = weight.detach().mT.contiguous(), bias.detach()
    periodic_kernels.connect(
        _firing(periods.numpy()), weights.numpy(), biases.numpy(), currents.numpy()
    )
    return currents.flatten(0, 1)


def connection_gradient(spikes: PeriodicSpikes, grad_currents: Tensor) -> Tensor:
    """Return the gradient of the weights of :func:`connect`, ``(O, C)``, the outputs last.

    Args:
        spikes: spikes of C neurons.
        grad_currents: gradient of the currents ``(T * N, O)``.
    """
    periods = spikes.periods
    grad_weights = grad_currents.new_empty((periods.shape[1], grad_currents.shape[1]))
    periodic_kernels.connection_gradients(
        _firing(periods.numpy().T),
        grad_currents.unflatten(0, (-1, len(periods))).contiguous().numpy(),
        grad_weights.numpy(),
    )
    return grad_weights.mT


def convolve(pooled: PooledSpikes, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the currents ``(T * N, O, H', W')`` of a convolution without padding.

    Args:
        pooled: averages of the spikes of C channels.
        weight: weights ``(O, C, K, K)``, O a multiple of LANES.
        bias: bias ``(O,)``.
    """
    spikes = pooled.spikes
    windows = _windows(pooled, weight)
    size = [length - windows.side + 1 for length in pooled.shape[-2:]]
    currents = empty_aligned(
        (spikes.time_steps, len(spikes.periods), size[0] * size[1] * len(bias)), weight.dtype
    )
    quarters = (weight.detach() * QUARTER).permute(1, 2, 3, 0).flip(1, 2).contiguous()
    periodic_kernels.convolve(
        _by_image(spikes),
        windows,
        quarters.view(-1).numpy(),
        bias.detach().numpy(),
        currents.numpy(),
    )
    return currents.view(-1, *size, len(bias)).movedim(-1, 1)


def convolution_gradient(pooled: PooledSpikes, grad_currents: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of the weights of :func:`convolve`, ``(O, C, K, K)``.

    Args:
        pooled: averages of the spikes of C channels.
        grad_currents: gradient of the currents ``(T * N, O, H', W')``.
        weight: weights ``(O, C, K, K)``.
    """
    windows, images = _windows(pooled, weight), len(pooled.spikes.periods)
    steps = grad_currents.movedim(1, -1).contiguous().view(-1, images, grad_currents[0].numel())
    grad_weights = steps.new_zeros((PARTS, weight.numel()))
    periodic_kernels.convolution_gradients(
        _by_image(pooled.spikes), windows, steps.numpy(), grad_weights.numpy()
    )
    taps = grad_weights.sum(0).mul_(QUARTER).view(-1, windows.side, windows.side, windows.outputs)
    return taps.flip(1, 2).permute(3, 0, 1, 2)


def _windows(pooled: PooledSpikes, weight: Tensor) -> Windows:
    """Return the sizes of a convolution with weights ``(O, C, K, K)``."""
    height, width = pooled.spikes.periods.shape[2:]
    return Windows(height, width, weight.shape[1], weight.shape[2], len(weight))


def _by_image(spikes: PeriodicSpikes) -> Array:
    """Return the periods of each image ``(N, H * W * C)``."""
    return spikes.periods.movedim(1, -1).flatten(1).contiguous().numpy()


def _firing(periods: Array) -> FiringNeurons:
    """Return the entries of ``periods``, of two axes, that are not 0."""
    rows, columns = np.nonzero(periods)
    indptr = np.searchsorted(rows, np.arange(len(periods) + 1))
    # NumPy returns the columns with gaps between them.
    return FiringNeurons(indptr, np.ascontiguousarray(columns), periods[rows, columns])
