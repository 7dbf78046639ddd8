"""Currents of spikes by table look-up on the CPU: tensors in, :mod:`lookup_kernels` within.

Sums of weights over spikes need no multiplications, and the sums over any four inputs can be kept
in a table. What :func:`look_up` gives is a tensor of currents that are not computed yet: neurons
that know it compute them as they go, and for anyone else they are computed once they are used.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_map_only

from baselines.neurons import lookup_kernels
from baselines.neurons.constants import LIFConstants
from baselines.neurons.lookup_kernels import GROUP, LANES, TABLES, TOGETHER

aten = torch.ops.aten
# Images whose currents are summed side by side.
STEPS = 16
CACHE_LINE = 64
# Of the work of a weight gradient, each with sums of its own.
PARTS = 16


@dataclass(frozen=True)
class Connections:
    """Which output pixel is connected to which input pixels, as the kernels take it.

    Attributes:
        taps: of the kernel.
        arrays: places, firsts, sources and taps, see :mod:`lookup_kernels`.
    """

    taps: int
    arrays: tuple[Any, Any, Any, Any]


@lru_cache
def connections(height: int, width: int, transposed: bool) -> Connections:
    """Those of the papers' convolutions: 3x3, stride 2, padding 1 (and output padding 1).

    Args:
        height: of the smaller map, which is the output unless ``transposed``.
        width: alike.
        transposed: whether the smaller map is the input.
    """
    i, j, down, right = np.meshgrid(
        *(np.arange(size) for size in (height, width, 3, 3)), indexing="ij"
    )
    row, column = 2 * i - 1 + down, 2 * j - 1 + right
    inside = (row >= 0) & (row < 2 * height) & (column >= 0) & (column < 2 * width)
    small, large = (i * width + j)[inside], (row * 2 * width + column)[inside]
    taps = (3 * down + right)[inside]
    outputs, sources = (large, small) if transposed else (small, large)
    # Pixels that use the same taps follow one another: their tables then stay in the cache.
    used = np.zeros((outputs.max() + 1, 9), bool)
    used[outputs, taps] = True
    places = np.lexsort(used.T)
    rank = np.argsort(places)
    order = np.lexsort((taps, rank[outputs]))
    firsts = np.concatenate([[0], np.cumsum(used[places].sum(1))])
    return Connections(9, (places, firsts, sources[order], taps[order]))


@lru_cache
def one_to_one() -> Connections:
    """That of a linear layer: one pixel, one tap."""
    only = np.array([0])
    return Connections(1, (only, np.array([0, 1]), only, only))


class Currents(Tensor):
    """Currents ``(R, O, ...)``, or ``(T, N, O, ...)``, that are computed once they are needed.

    They are a function's result on the way to its neurons, not to be kept: spikes and weights must
    not change before they are computed.
    """

    _source: "_Source"

    @staticmethod
    def __new__(cls, source: "_Source", images: Sequence[int]) -> "Currents":
        """Of a source, its R images on one axis or on two, ``(T, N)``."""
        shape = torch.empty((*images, *source.pixels, len(source.bias)), device="meta")
        shape = shape.movedim(-1, len(images))
        currents: Currents = Tensor._make_wrapper_subclass(
            cls, shape.shape, shape.stride(), dtype=source.dtype
        )
        currents._source = source
        return currents

    def __init__(self, source: "_Source", images: Sequence[int]) -> None:
        super().__init__()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Images may be put on other axes; what else is done to it is done to the numbers."""
        if function is aten.view.default:
            source, shape = args[0]._source, args[1]
            of_image = [len(source.bias), *source.pixels]
            if shape[-len(of_image) :] == of_image and -1 not in shape:
                return cls(source, shape[: -len(of_image)])
        args, kwargs = tree_map_only(cls, cls.computed, (args, dict(kwargs or {})))
        return function(*args, **kwargs)

    def computed(self) -> Tensor:
        """The numbers, with the channels last in memory."""
        return self._source.currents.view(self.shape)

    def fire(
        self, membrane: Tensor | None, scale: Tensor, shift: Tensor, constants: LIFConstants
    ) -> tuple[Tensor, Tensor]:
        """Spikes of the neurons that these currents ``(T, N, O, ...)`` drive, and their potential.

        Args:
            membrane: where to start, ``(N, O, ...)``; at rest if None.
            scale: multiplies the currents, ``(O,)``.
            shift: is then added, ``(O,)``.
            constants: of the neurons.

        Returns:
            Spikes ``(T, N, O, ...)`` in bytes, and the membrane after the last step's reset.
        """
        return self._source.fire(self.shape, membrane, scale, shift, constants)


@dataclass(frozen=True)
class _Source:
    """What currents are computed of.

    Attributes:
        spikes: bytes ``(R, P, C)``, contiguous.
        weights: ``(K, C, O)``.
        bias: ``(O,)``.
        connections: of the pixels.
        pixels: ``(H, W)`` of the output; empty if it has none.
        rounded: whether the currents are rounded to bfloat16, as the weights are.
    """

    spikes: Tensor
    weights: Tensor
    bias: Tensor
    connections: Connections
    pixels: tuple[int, ...]
    rounded: bool

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the currents."""
        return torch.bfloat16 if self.rounded else self.weights.dtype

    @cached_property
    def currents(self) -> Tensor:
        """``(R, O, H, W)`` or ``(R, O)``."""
        size = (len(self.spikes), self._outputs, self._channels)
        currents = self.weights.new_empty(size)
        time_steps = math.gcd(len(self.spikes), STEPS)
        lookup_kernels.add_up(*self._arguments(time_steps), currents.view(-1).numpy())
        return self._restored(currents.to(self.dtype))

    def fire(
        self,
        shape: torch.Size,
        membrane: Tensor | None,
        scale: Tensor,
        shift: Tensor,
        constants: LIFConstants,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Currents.fire`."""
        size = (shape[1], self._outputs, self._channels)
        if membrane is None:
            ended = self.weights.new_zeros(size)
        else:
            laid_out = membrane.flatten(2).mT if self.pixels else membrane[:, None]
            ended = _padded(laid_out.clone(memory_format=torch.contiguous_format), LANES)
        spikes = torch.empty((shape[0], *size), dtype=torch.uint8)
        number = ended.numpy().dtype.type
        lookup_kernels.fire(
            *self._arguments(shape[0]),
            self.rounded,
            _padded(scale, LANES).numpy(),
            _padded(shift, LANES).numpy(),
            number(constants.decay),
            number(constants.threshold),
            ended.view(-1).numpy(),
            spikes.view(-1).numpy(),
        )
        return self._restored(spikes.flatten(0, 1)).view(shape), self._restored(ended)

    def _arguments(self, time_steps: int) -> tuple[Any, ...]:
        """What both kernels take first."""
        spikes = _padded(self.spikes, GROUP * TOGETHER)
        groups = spikes.shape[-1] // GROUP
        images = len(spikes) // time_steps
        words = spikes.view(time_steps, images, -1).numpy().view(np.uint32)
        image_stride = words.shape[-1] + CACHE_LINE
        step_stride = images * image_stride + CACHE_LINE
        patterns = np.empty(time_steps * step_stride, np.uint8)
        lookup_kernels.pack(words, patterns, step_stride, image_stride)
        taps = self.connections.taps
        weights = _padded(self.weights, GROUP * TOGETHER, LANES)
        weights = weights.view(taps * groups, GROUP, -1, LANES)
        # Allocated by PyTorch, whose memory starts where the processor's widest loads do best.
        tables = weights.new_empty((weights.shape[2], taps * groups, 2**GROUP, LANES))
        lookup_kernels.tabulate(weights.numpy(), tables.numpy())
        return (
            patterns,
            tables.view(-1).numpy(),
            *self.connections.arrays,
            _padded(self.bias, LANES).numpy(),
            step_stride,
            image_stride,
            groups,
            taps,
            time_steps,
        )

    @property
    def _outputs(self) -> int:
        """Number of output pixels."""
        return len(self.connections.arrays[0])

    @property
    def _channels(self) -> int:
        """Number of output channels as the kernels have them."""
        return len(self.bias) + -len(self.bias) % LANES

    def _restored(self, rows: Tensor) -> Tensor:
        """``(R, Q, O + padding)`` as ``(R, O, H, W)`` or ``(R, O)``."""
        rows = rows[..., : len(self.bias)].contiguous()
        if not self.pixels:
            return rows[:, 0]
        return rows.unflatten(1, self.pixels).movedim(-1, 1)


def _padded(tensor: Tensor, *multiples: int) -> Tensor:
    """Contiguous, with zeros behind the last axes, up to a multiple of each."""
    sizes = tensor.shape[-len(multiples) :]
    missing = [-size % multiple for size, multiple in zip(sizes, multiples, strict=True)]
    if any(missing):
        tensor = F.pad(tensor, [number for m in reversed(missing) for number in (0, m)])
    return tensor.contiguous()


def computed(currents: Tensor) -> Tensor:
    """The numbers of currents of any kind."""
    return currents.computed() if isinstance(currents, Currents) else currents


def convolve(
    spikes: Tensor, weight: Tensor, bias: Tensor, transposed: bool, rounded: bool = False
) -> Currents:
    """Currents of one of the papers' convolutions: 3x3, stride 2, padding 1 (output padding 1).

    Args:
        spikes: 0 or 1, in bytes, ``(R, C, H, W)``, H and W even unless ``transposed``.
        weight: as PyTorch lays it out, ``(O, C, 3, 3)``, or ``(C, O, 3, 3)`` if ``transposed``.
        bias: ``(O,)``.
        transposed: whether height and width are doubled and not halved.
        rounded: whether weights, bias and currents are rounded to bfloat16; sums are not.
    """
    height, width = spikes.shape[2:]
    if not transposed:
        height, width = height // 2, width // 2
    axes = (2, 3, 0, 1) if transposed else (2, 3, 1, 0)
    source = _Source(
        spikes.flatten(2).mT.contiguous(),
        _in_precision(weight, rounded).permute(axes).flatten(0, 1),
        _in_precision(bias, rounded),
        connections(height, width, transposed),
        (2 * height, 2 * width) if transposed else (height, width),
        rounded,
    )
    return Currents(source, (len(spikes),))


def connect(spikes: Tensor, weight: Tensor, bias: Tensor, rounded: bool = False) -> Currents:
    """Currents ``(R, O)`` of a linear layer.

    Args:
        spikes: 0 or 1, in bytes, ``(R, C)``.
        weight: ``(O, C)``.
        bias: ``(O,)``.
        rounded: see :func:`convolve`.
    """
    source = _Source(
        spikes.contiguous()[:, None],
        _in_precision(weight, rounded).mT[None],
        _in_precision(bias, rounded),
        one_to_one(),
        (),
        rounded,
    )
    return Currents(source, (len(spikes),))


def weight_gradient(spikes: Tensor, gradient: Tensor, transposed: bool) -> Tensor:
    """Gradient of the weight of :func:`convolve`, laid out as PyTorch does.

    Args:
        spikes: 0 or 1, in bytes, ``(R, C, H, W)``, R a multiple of four.
        gradient: of the currents, ``(R, O, H', W')``.
        transposed: as there.
    """
    height, width = (spikes if transposed else gradient).shape[2:]
    joined = connections(height, width, transposed)
    one, two, three, four = spikes.flatten(2).mT.flatten(1).unflatten(0, (-1, GROUP)).unbind(1)
    size = one.shape[1]
    patterns = torch.empty((len(one), size + CACHE_LINE), dtype=torch.uint8)
    patterns[:, :size] = one | two << 1 | three << 2 | four << 3
    rows = _padded(gradient.flatten(2).mT, LANES)
    channels, blocks = spikes.shape[1], rows.shape[-1] // LANES
    splits = max(1, min(PARTS // blocks, len(one) // TABLES))
    sums = rows.new_zeros((splits, blocks, joined.taps * channels * LANES))
    lookup_kernels.add_gradients(
        patterns.view(-1).numpy(),
        patterns.shape[1],
        *joined.arrays,
        rows.view(-1).numpy(),
        channels,
        joined.taps,
        sums.numpy(),
    )
    found = sums.sum(0).view(blocks, 3, 3, channels, LANES).permute(3, 0, 4, 1, 2).flatten(1, 2)
    found = found[:, : gradient.shape[1]]
    return found if transposed else found.transpose(0, 1)


def _in_precision(weight: Tensor, rounded: bool) -> Tensor:
    return weight.detach().bfloat16().float() if rounded else weight.detach()


def add_firing(spikes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Currents ``(R, O)`` of a linear layer, one addition for each input that fires.

    For few rows, of which a table would cost more than it saves.

    Args:
        spikes: 0 or 1, in bytes, ``(R, C)``.
        weight: ``(O, C)``, best with the outputs last in memory.
        bias: ``(O,)``.
    """
    firsts = np.zeros(len(spikes) + 1, np.int64)
    firsts[1:] = spikes.sum(1).cumsum(0).numpy()
    bias = _padded(bias.detach(), LANES)
    currents = bias.new_empty((len(spikes), len(bias)))
    lookup_kernels.add_firing(
        firsts,
        spikes.nonzero()[:, 1].numpy(),
        _padded(weight.detach().mT, LANES).view(-1).numpy(),
        bias.numpy(),
        currents.view(-1).numpy(),
    )
    return currents[:, : len(weight)]
