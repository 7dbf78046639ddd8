"""Currents of spikes by table look-up on the CPU: the PyTorch interface of the kernels.

The kernels are in :mod:`lookup_kernels` and :mod:`linear_kernels`. :func:`convolve` returns a lazy
tensor of currents. The neurons of this backend compute such currents one by one as they need them,
without storing them; any other operation computes and stores all of them first.
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
from baselines.fused.cpu.aligned_memory import padded, unwritten
from baselines.fused.cpu.connectivity import Connections, connections
from baselines.fused.cpu.lif_constants import LIFConstants
from baselines.fused.cpu.lif_kernels import PIECES
from baselines.fused.cpu.lookup_kernels import GROUP, TOGETHER
from baselines.fused.cpu.packed_spikes import Bits, Words, words_of
from baselines.fused.cpu.simd import LANES
from baselines.fused.lazy_tensors import Deferred, channels_last

aten = torch.ops.aten
# Upper limit of the time steps that `add_up` sums in one pass over the tables.
STEPS = 16


class Currents(Deferred):
    """Lazy currents ``(R, O, H, W)`` or ``(T, N, O, H, W)``, computed when they are needed."""

    _source: "_Source"
    _images: Sequence[int]

    @staticmethod
    def __new__(cls, source: "_Source", images: Sequence[int]) -> "Currents":
        """Return the currents of a source, with image axes of sizes ``(R,)`` or ``(T, N)``."""
        layout = channels_last(images, source.pixels, len(source.bias))
        currents: Currents = Tensor._make_wrapper_subclass(cls, *layout, dtype=source.dtype)
        currents._source, currents._images = source, images
        return currents

    def __init__(self, source: "_Source", images: Sequence[int]) -> None:
        super().__init__()

    def rearranged(self, function: Any, *args: Any, **kwargs: Any) -> Deferred | None:
        """Return the lazy result of a view that splits or joins the image axes, else None.

        Args:
            function: PyTorch operation.
            *args: arguments after the currents.
            **kwargs: keyword arguments.
        """
        if function is aten.detach.default:
            return Currents(self._source, self._images)
        of_image = [len(self._source.bias), *self._source.pixels]
        if function is aten.view.default:
            shape = list(args[0])
            if shape[-len(of_image) :] == of_image and -1 not in shape:
                return Currents(self._source, shape[: -len(of_image)])
        return None

    def computed(self) -> Tensor:
        """Compute the currents ``(R, O, H, W)`` or ``(T, N, O, H, W)``, channels last in memory."""
        return self._source.currents.view(self.shape)

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and biased variance per channel, each ``(O,)``."""
        return self._source.moments

    def fire(
        self, membrane: Tensor | None, scale: Tensor, shift: Tensor, constants: LIFConstants
    ) -> tuple[Tensor, Tensor]:
        """Compute the spikes of the neurons that these currents ``(T, N, O, H, W)`` drive.

        Args:
            membrane: potentials to start from, ``(N, O, H, W)``; at rest if None.
            scale: factors of the currents, ``(O,)``.
            shift: offsets of the scaled currents, ``(O,)``.
            constants: decay and threshold of the neurons.

        Returns:
            Spikes ``(T, N, O, H, W)`` and potentials ``(N, O, H, W)`` after the last step's reset.
        """
        return self._source.fire(self.shape, membrane, scale, shift, constants)


@dataclass(frozen=True)
class _Source:
    """Operands from which lazy currents are computed.

    Attributes:
        spikes: ``(R, C, H', W')``, 0 or 1, packed or uint8.
        weights: ``(K, C, O)``, for K kernel taps.
        bias: ``(O,)``.
        connections: input pixels and kernel taps of each output pixel.
        pixels: ``(H, W)`` of the output.
        rounded: True if the weights are rounded to bfloat16 and the currents are to be.
    """

    spikes: Tensor
    weights: Tensor
    bias: Tensor
    connections: Connections
    pixels: tuple[int, int]
    rounded: bool

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the currents."""
        return torch.bfloat16 if self.rounded else self.weights.dtype

    @property
    def currents(self) -> Tensor:
        """Currents ``(R, O, H, W)``."""
        return self._summed[0]

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and biased variance per channel, each ``(O,)``."""
        # NumPy is faster than PyTorch for arrays this small.
        origins, sums, squares, counts = self._summed[1]
        counts = counts.repeat(LANES, 1)
        mean = (counts * origins + sums).sum(0) / counts.sum(0)
        apart = origins - mean
        variance = (squares + 2 * apart * sums + counts * apart**2).sum(0) / counts.sum(0)
        found = np.stack([mean, np.maximum(variance, 0)])[:, : len(self.bias)]
        mean, variance = torch.from_numpy(found).to(self.weights.dtype)
        return mean, variance

    @cached_property
    def _summed(self) -> tuple[Tensor, list[Any]]:
        """Currents ``(R, O, H, W)``, and origins, sums, squares and counts per piece and channel.

        See :func:`lookup_kernels.add_up`; the last four are in float64.
        """
        size = (len(self.spikes), self._outputs, self._channels)
        currents = unwritten(size, self.weights.dtype)
        time_steps = math.gcd(len(self.spikes), STEPS)
        numbers = currents.view(-1).numpy()
        pieces = [np.zeros((PIECES, self._channels), numbers.dtype) for _ in range(3)]
        counts = np.zeros((PIECES, self._channels // LANES), np.int64)
        flat = [piece.reshape(-1) for piece in pieces]
        lookup_kernels.add_up(*self._arguments(time_steps), numbers, *flat, counts)
        of_pieces = [piece.astype(np.float64) for piece in (*pieces, counts)]
        return self._restored(currents.to(self.dtype)), of_pieces

    def fire(
        self,
        shape: torch.Size,
        membrane: Tensor | None,
        scale: Tensor,
        shift: Tensor,
        constants: LIFConstants,
    ) -> tuple[Tensor, Tensor]:
        """Compute spikes and potentials; see :meth:`Currents.fire`."""
        ended = self.weights.new_empty((shape[1], self._outputs, self._channels))
        started = ended if membrane is None else padded(membrane.flatten(2).mT, LANES)
        fired = Words.empty(shape[0], shape[1], self._outputs, len(self.bias))
        number = ended.numpy().dtype.type
        lookup_kernels.fire(
            *self._arguments(shape[0]),
            padded(scale, LANES).numpy(),
            padded(shift, LANES).numpy(),
            number(constants.decay),
            number(constants.threshold),
            membrane is None,
            started.view(-1).numpy(),
            ended.view(-1).numpy(),
            fired.array,
            fired.step_stride,
            fired.image_stride,
        )
        return Bits(fired, shape[:2], self.pixels), self._restored(ended)

    def _arguments(self, time_steps: int) -> tuple[Any, ...]:
        """Return the leading arguments that both kernels have in common."""
        words, taps = words_of(self.spikes, time_steps), self.connections.taps
        groups = words.of_pixel * TOGETHER
        weights = padded(self.weights, LANES, LANES)
        weights = weights.view(taps * groups, GROUP, -1, LANES)
        tables = unwritten((weights.shape[2], taps * groups, 2**GROUP, LANES), weights.dtype)
        lookup_kernels.tabulate(weights.numpy(), tables.numpy())
        return (
            words.array,
            *words.layout,
            tables.view(-1).numpy(),
            *self.connections.arrays,
            padded(self.bias, LANES).numpy(),
            words.of_pixel,
            taps,
            time_steps,
            self.rounded,
        )

    @property
    def _outputs(self) -> int:
        """Number of output pixels."""
        return math.prod(self.pixels)

    @property
    def _channels(self) -> int:
        """Number of output channels, rounded up to a multiple of LANES."""
        return len(self.bias) + -len(self.bias) % LANES

    def _restored(self, rows: Tensor) -> Tensor:
        """Convert ``(R, Q, B * LANES)`` to ``(R, O, H, W)``."""
        rows = rows[..., : len(self.bias)].contiguous()
        return rows.unflatten(1, self.pixels).movedim(-1, 1)


def convolve(
    spikes: Tensor, weight: Tensor, bias: Tensor, transposed: bool, rounded: bool = False
) -> Currents:
    """Return the lazy currents of a 3x3 convolution with stride 2 and padding 1.

    Args:
        spikes: ``(R, C, H, W)``, 0 or 1, packed or uint8; H and W even unless ``transposed``.
        weight: ``(O, C, 3, 3)``, or ``(C, O, 3, 3)`` if ``transposed``.
        bias: ``(O,)``.
        transposed: True for a transposed convolution (output padding 1), which doubles height and
            width; False for one that halves them.
        rounded: True to round weights, bias and currents, but not the sums, to bfloat16.
    """
    height, width = spikes.shape[2:]
    if not transposed:
        height, width = height // 2, width // 2
    axes = (2, 3, 0, 1) if transposed else (2, 3, 1, 0)
    source = _Source(
        spikes,
        _in_precision(weight, rounded).permute(axes).flatten(0, 1),
        _in_precision(bias, rounded),
        connections(height, width, transposed),
        (2 * height, 2 * width) if transposed else (height, width),
        rounded,
    )
    return Currents(source, (len(spikes),))


def connect(spikes: Tensor, weight: Tensor, bias: Tensor, rounded: bool = False) -> Tensor:
    """Compute the currents ``(R, O)`` of a linear layer.

    Args:
        spikes: ``(R, C)`` uint8, 0 or 1.
        weight: ``(O, C)``; faster with the outputs last in memory.
        bias: ``(O,)``.
        rounded: True to round weights, bias and currents, but not the sums, to bfloat16.
    """
    words = Words.packed(spikes[None, :, None])
    bias = padded(bias.detach(), LANES)
    currents = unwritten((len(spikes), len(bias)), bias.dtype)
    linear_kernels.connect(
        words.array,
        words.image_stride,
        padded(weight.detach().mT, LANES, LANES).numpy(),
        bias.numpy(),
        rounded,
        currents.view(-1).numpy(),
    )
    currents = currents[:, : len(weight)]
    return currents.bfloat16() if rounded else currents


def _in_precision(weight: Tensor, rounded: bool) -> Tensor:
    return weight.detach().bfloat16().float() if rounded else weight.detach()
