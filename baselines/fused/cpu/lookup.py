"""Currents of spikes by table look-up on the CPU.

Takes tensors and calls the kernels in :mod:`lookup_kernels` and :mod:`linear_kernels`.

:func:`convolve` returns lazy currents: the neurons of this backend sum them in their own kernel,
all other code sees a tensor that is computed on first use.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.fused.cpu import linear_kernels, lookup_kernels
from baselines.fused.cpu.aligned_memory import empty_aligned, padded
from baselines.fused.cpu.connectivity import Connectivity, convolution_connectivity
from baselines.fused.cpu.kernel import PIECES
from baselines.fused.cpu.lazy_tensors import LazyTensor, channels_last
from baselines.fused.cpu.lif_constants import LIFConstants
from baselines.fused.cpu.lookup_kernels import (
    GROUP,
    GROUPS_PER_WORD,
    PATTERNS,
    Affine,
    LookupTables,
    Membranes,
    Moments,
)
from baselines.fused.cpu.packed_spike_kernels import SpikeWords
from baselines.fused.cpu.packed_spikes import PackedSpikes, PackedSpikeTensor, packed_spikes_of
from baselines.fused.cpu.simd import LANES

aten = torch.ops.aten
# Images whose currents are summed together where spikes have no axis of time.
STEPS = 16


class LazyCurrents(LazyTensor):
    """Currents ``(R, O, H, W)`` or ``(T, N, O, H, W)`` that are computed when they are needed.

    Args:
        source: spikes and weights that the currents are computed from.
        leading: sizes of the axes before the channels, ``(R,)`` or ``(T, N)``.
    """

    _source: "_Source"
    _leading: Sequence[int]

    @staticmethod
    def __new__(cls, source: "_Source", leading: Sequence[int]) -> "LazyCurrents":
        """Return the tensor without computing its values."""
        layout = channels_last(leading, source.size, len(source.bias))
        currents: LazyCurrents = Tensor._make_wrapper_subclass(cls, *layout, dtype=source.dtype)
        currents._source, currents._leading = source, leading
        return currents

    def __init__(self, source: "_Source", leading: Sequence[int]) -> None:
        super().__init__()

    def rearranged(self, function: Any, *args: Any, **kwargs: Any) -> LazyTensor | None:
        """Split or merge the axes before the channels; see the base class."""
        if function is aten.detach.default:
            return LazyCurrents(self._source, self._leading)
        image = [len(self._source.bias), *self._source.size]
        if function is aten.view.default:
            shape = list(args[0])
            if shape[-len(image) :] == image and -1 not in shape:
                return LazyCurrents(self._source, shape[: -len(image)])
        return None

    def materialise(self) -> Tensor:
        """Return the currents of this tensor's shape ``(..., O, H, W)``, channels last."""
        return self._source.currents.view(self.shape)

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and biased variance per channel, each ``(O,)``."""
        return self._source.moments

    def lif_forward(
        self, membrane: Tensor | None, scale: Tensor, shift: Tensor, constants: LIFConstants
    ) -> tuple[Tensor, Tensor]:
        """Run the neurons that these currents ``(T, N, O, H, W)`` drive.

        Args:
            membrane: initial potential ``(N, O, H, W)``; None to start at rest.
            scale: factor of the currents per channel ``(O,)``.
            shift: summand of the scaled currents per channel ``(O,)``.
            constants: constants of the neurons.

        Returns:
            Packed spikes ``(T, N, O, H, W)``, and the potential ``(N, O, H, W)`` after the last
            reset.
        """
        affine = Affine(padded(scale, LANES).numpy(), padded(shift, LANES).numpy())
        return self._source.lif_forward(self.shape[:2], membrane, affine, constants)


@dataclass(frozen=True)
class _Source:
    """Spikes and weights that currents are computed from.

    Attributes:
        spikes: spikes ``(R, C, H', W')``, packed or uint8.
        weights: weights ``(K, C, O)``.
        bias: bias ``(O,)``.
        connectivity: input pixels of each output pixel.
        size: height and width ``(H, W)`` of the output.
        rounded: True if the weights are rounded to bfloat16 and the currents are to be.
    """

    spikes: Tensor
    weights: Tensor
    bias: Tensor
    connectivity: Connectivity
    size: tuple[int, int]
    rounded: bool

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the currents."""
        return torch.bfloat16 if self.rounded else self.weights.dtype

    @property
    def currents(self) -> Tensor:
        """Currents ``(R, O, H, W)``."""
        return self._summed[0]

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and biased variance per channel, each ``(O,)``."""
        # In NumPy: for so few numbers PyTorch takes longer to start than to compute.
        origin, sums, squares, counts = (array.astype(np.float64) for array in self._summed[1])
        counts = counts.repeat(LANES, 1)
        mean = (counts * origin + sums).sum(0) / counts.sum(0)
        offset = origin - mean
        variance = (squares + 2 * offset * sums + counts * offset**2).sum(0) / counts.sum(0)
        moments = np.stack([mean, np.maximum(variance, 0)])[:, : len(self.bias)]
        mean, variance = torch.from_numpy(moments).to(self.weights.dtype)
        return mean, variance

    @cached_property
    def _summed(self) -> tuple[Tensor, Moments]:
        """Currents ``(R, O, H, W)`` and the sums for their moments."""
        currents = empty_aligned(
            (len(self.spikes), math.prod(self.size), self._channels), self.weights.dtype
        )
        numbers = currents.view(-1).numpy()
        origin, sums, squares = np.zeros((3, PIECES, self._channels), numbers.dtype)
        counts = np.zeros((PIECES, self._channels // LANES), np.int64)
        moments = Moments(origin, sums, squares, counts)
        time_steps = math.gcd(len(self.spikes), STEPS)
        spikes, tables = self._operands(time_steps)
        lookup_kernels.sum_currents(spikes, tables, self.connectivity, numbers, moments)
        return self._unpadded(currents.to(self.dtype)), moments

    def lif_forward(
        self,
        leading: Sequence[int],
        membrane: Tensor | None,
        affine: Affine,
        constants: LIFConstants,
    ) -> tuple[Tensor, Tensor]:
        """Run the neurons; see :meth:`LazyCurrents.lif_forward`.

        Args:
            leading: numbers of time steps and images ``(T, N)``.
            membrane: initial potential ``(N, O, H, W)``; None to start at rest.
            affine: scale and shift of the currents.
            constants: constants of the neurons.
        """
        time_steps, images = leading
        final = self.weights.new_empty((images, math.prod(self.size), self._channels))
        initial = final if membrane is None else padded(membrane.flatten(2).mT, LANES)
        membranes = Membranes(initial.view(-1).numpy(), final.view(-1).numpy(), membrane is None)
        fired = PackedSpikes.empty(time_steps, images, math.prod(self.size), len(self.bias))
        lookup_kernels.lif_forward(
            *self._operands(time_steps),
            connectivity=self.connectivity,
            affine=affine,
            constants=constants.scalars(affine.scale),
            membranes=membranes,
            fired=fired.packed,
        )
        return PackedSpikeTensor(fired, leading, self.size), self._unpadded(final)

    def _operands(self, time_steps: int) -> tuple[SpikeWords, LookupTables]:
        """Return the spikes, as so many time steps, and the tables of the weights."""
        spikes = packed_spikes_of(self.spikes, time_steps).packed
        groups = self.connectivity.kernel_size * spikes.blocks * GROUPS_PER_WORD
        weights = padded(self.weights, LANES, LANES).view(groups, GROUP, -1, LANES)
        entries = empty_aligned((weights.shape[2], groups, PATTERNS, LANES), weights.dtype)
        lookup_kernels.tabulate(weights.numpy(), entries.numpy())
        bias = padded(self.bias, LANES).numpy()
        return spikes, LookupTables(entries.view(-1).numpy(), bias, self.rounded)

    @property
    def _channels(self) -> int:
        """Number of output channels, padded to whole vectors."""
        return len(self.bias) + -len(self.bias) % LANES

    def _unpadded(self, rows: Tensor) -> Tensor:
        """Return ``(R, H * W, O + padding)`` as ``(R, O, H, W)``."""
        rows = rows[..., : len(self.bias)].contiguous()
        return rows.unflatten(1, self.size).movedim(-1, 1)


def convolve(
    spikes: Tensor, weight: Tensor, bias: Tensor, transposed: bool, rounded: bool = False
) -> LazyCurrents:
    """Return the currents of a convolution of stride 2; see :func:`convolution_connectivity`.

    Args:
        spikes: spikes ``(R, C, H, W)``, packed or uint8; H and W are even unless ``transposed``.
        weight: weights ``(O, C, K, K)``, or ``(C, O, K, K)`` if ``transposed``, K 3 or 4.
        bias: bias ``(O,)``.
        transposed: True to double height and width instead of halving them.
        rounded: True to round weights, bias and currents, but not partial sums, to bfloat16.
    """
    height, width = spikes.shape[2:]
    if not transposed:
        height, width = height // 2, width // 2
    axes = (2, 3, 0, 1) if transposed else (2, 3, 1, 0)
    source = _Source(
        spikes,
        values(weight, rounded).permute(axes).flatten(0, 1),
        values(bias, rounded),
        convolution_connectivity(height, width, transposed, weight.shape[-1]),
        (2 * height, 2 * width) if transposed else (height, width),
        rounded=rounded,
    )
    return LazyCurrents(source, (len(spikes),))


def connect(spikes: Tensor, weight: Tensor, bias: Tensor, rounded: bool = False) -> Tensor:
    """Return the currents ``(R, O)`` of a linear layer.

    Args:
        spikes: uint8 spikes ``(R, C)``.
        weight: weights ``(O, C)``; fastest with the outputs last in memory.
        bias: bias ``(O,)``.
        rounded: True to round weights, bias and currents, but not partial sums, to bfloat16.
    """
    packed = PackedSpikes.pack(spikes[None, :, None]).packed
    biases = padded(values(bias, rounded), LANES)
    currents = empty_aligned((len(spikes), len(biases)), biases.dtype)
    weights = padded(values(weight, rounded).mT, LANES, LANES).view(-1).numpy()
    parameters = linear_kernels.LinearWeights(
        weights, biases.numpy(), LANES, len(biases), rounded=rounded
    )
    linear_kernels.sum_currents(packed, parameters, currents.view(-1).numpy())
    currents = currents[:, : len(weight)]
    return currents.bfloat16() if rounded else currents


def values(parameter: Tensor, rounded: bool) -> Tensor:
    """Return the values of a parameter ``(...)``, rounded to bfloat16 values if ``rounded``."""
    numbers = parameter.detach()
    return numbers.bfloat16().to(numbers.dtype) if rounded else numbers
