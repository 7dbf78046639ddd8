"""Normalised LIF neurons on the CPU, with gradients: tensors in, :mod:`compiled` kernels within.

Tensors are ``(T, N, C, ...)``. Within, the channels lie last: convolutions are fastest so on a
CPU, and what differs by channel is then read as fast as what does not.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.fused.cpu import lif_backward_kernels, lif_kernels
from baselines.fused.cpu.aligned_memory import padded, unwritten
from baselines.fused.cpu.lif_constants import LIFConstants
from baselines.fused.cpu.packed_spikes import Bits
from baselines.fused.cpu.simd import LANES
from baselines.fused.lazy_tensors import Spikes, Weighted, computed

CHANNELS = 2
TILE = 1024
FEW = 64


@dataclass(frozen=True)
class Normalisation:
    """``weight * (x - mean) * inverse_deviation + bias`` by channel, each ``(C,)``.

    Attributes:
        weight: learned.
        bias: learned.
        mean: subtracted.
        inverse_deviation: multiplied with.
        of_batch: whether mean and deviation are those of the currents, so that gradients flow
            through them.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    inverse_deviation: Tensor
    of_batch: bool

    @cached_property
    def affine(self) -> tuple[Tensor, Tensor]:
        """What multiplies and what is then added."""
        scale = self.weight * self.inverse_deviation
        return scale, self.bias - self.mean * scale

    @cached_property
    def tiles(self) -> tuple[Any, Any]:
        """The same, of a tile of neurons."""
        scale, shift = self.affine
        return _tiled(scale.numpy()), _tiled(shift.numpy())


def moments(currents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance by channel of ``(T, N, C, ...)``, each ``(C,)``."""
    laid_out = _channels_last(currents.detach())
    channels = laid_out.shape[-1]
    # The first values are near enough to the mean for the sums to keep their digits.
    few = laid_out.reshape(-1, channels)[:FEW]
    origin = few.to(_computed(currents)).mean(0)
    tile = _tiled(origin.numpy())
    sums, squares = (_pieces(tile) for _ in range(2))
    lif_kernels.deviations(_rows(laid_out), tile, sums, squares)
    elements = laid_out.numel() / channels
    offset, square = (_by_channel(part, channels) / elements for part in (sums, squares))
    found = origin.numpy() + offset, np.maximum(square - offset**2, 0)
    mean, variance = (torch.from_numpy(each).to(origin.dtype) for each in found)
    return mean, variance


def fire(
    currents: Tensor,
    membrane: Tensor | None,
    time_steps: int,
    constants: LIFConstants,
    norm: Normalisation | None,
    in_bytes: bool,
) -> tuple[Tensor, Tensor]:
    """Spikes ``(T, N, ...)`` and the last potential ``(N, ...)`` after its reset.

    Args:
        currents: ``(T, N, C, ...)``, or ``(1, N, C, ...)`` for the same at each step.
        membrane: where to start, ``(N, C, ...)``; at rest if None.
        time_steps: T.
        constants: of the neurons.
        norm: applied to the currents first.
        in_bytes: whether the spikes are kept in bytes. Where a gradient may flow they are
            :class:`Spikes` then, else uint8.
    """
    parameters = (
        (None,) * 4 if norm is None else (norm.weight, norm.bias, norm.mean, norm.inverse_deviation)
    )
    of_batch = norm is not None and norm.of_batch
    dtype = torch.uint8 if in_bytes else currents.dtype
    if torch.is_grad_enabled():
        return _Firing.apply(
            currents, membrane, *parameters, of_batch, time_steps, constants, dtype
        )
    currents = _channels_last(computed(currents))
    return _fired(currents, membrane, _tiles(norm, currents), time_steps, constants, dtype)


def weighted_sum(spikes: Tensor, weights: Tensor) -> Tensor:
    """``sum_t w_t * s_t`` of spikes in bits or bytes ``(T, N, C, ...)`` and weights ``(T,)``."""
    if isinstance(spikes, Bits):
        return spikes.weighted_sum(weights)
    laid_out = _channels_last(spikes)
    total = torch.empty(laid_out.shape[1:], dtype=weights.dtype)
    lif_kernels.weighted_sum(_rows(laid_out), weights.numpy(), _rows(total[None])[0])
    return _restored(total, CHANNELS - 1)


class _Firing(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        currents: Tensor,
        membrane: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor | None,
        inverse_deviation: Tensor | None,
        of_batch: bool,
        time_steps: int,
        constants: LIFConstants,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        laid_out = _channels_last(computed(currents))
        parameters = (weight, bias, mean, inverse_deviation)
        ctx.save_for_backward(laid_out, membrane, *parameters)
        ctx.of_batch, ctx.time_steps, ctx.constants = of_batch, time_steps, constants
        ctx.set_materialize_grads(False)
        ctx.tiles = _tiles(_normalisation(*parameters, of_batch), laid_out)
        spikes, ended = _fired(laid_out, membrane, ctx.tiles, time_steps, constants, dtype)
        return spikes if dtype == currents.dtype else Spikes(spikes, currents.dtype), ended

    @staticmethod
    def backward(
        ctx: Any, of_spikes: Tensor | None, of_ended: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        currents, membrane, weight, bias, mean, inverse_deviation = ctx.saved_tensors
        started, of_membrane = (_state(each, currents) for each in (membrane, of_ended))
        scale, shift = ctx.tiles
        norm = _normalisation(weight, bias, mean, inverse_deviation, ctx.of_batch)
        factors, of_spikes = _factors(of_spikes, currents, ctx.time_steps)
        rows, of_membrane = _by_lanes(currents), _by_lanes(of_membrane[None])
        if of_ended is not None:
            of_membrane = of_membrane.clone()
        of_rows = unwritten(rows.shape, (currents if len(rows) > 1 else started).dtype)
        sums, products = (_pieces(scale) for _ in range(2))
        number = scale.dtype.type
        constants = ctx.constants
        lif_backward_kernels.fire_backward(
            _rows(rows),
            _tiled((started.new_zeros(1) if mean is None else mean).numpy()),
            scale,
            shift,
            number(constants.decay),
            number(constants.threshold),
            number(constants.centre),
            number(constants.width / 2),
            number(1 / constants.width),
            membrane is None,
            _rows(_by_lanes(started[None]))[0],
            factors.to(started.dtype).numpy(),
            _rows(_by_lanes(_channels_last(of_spikes))),
            of_ended is None,
            _rows(of_membrane)[0],
            _rows(of_rows),
            sums,
            products,
        )
        of_currents = of_rows[:, : currents[0].numel()].reshape(currents.shape)
        of_weight, of_bias = _through_norm(norm, of_currents, currents, sums, products)
        of_started = of_membrane[0, : started.numel()].view(started.shape)
        return (
            _restored(of_currents.to(currents.dtype)),
            _restored(of_started, CHANNELS - 1) if ctx.needs_input_grad[1] else None,
            of_weight,
            of_bias,
            *(None,) * 6,
        )


def _fired(
    currents: Tensor,
    membrane: Tensor | None,
    tiles: tuple[Any, Any],
    time_steps: int,
    constants: LIFConstants,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Spikes and the last potential for currents ``(T, N, ..., C)``, see :func:`fire`."""
    spikes = unwritten((time_steps, *currents.shape[1:]), dtype)
    started = _state(membrane, currents)
    ended = torch.empty_like(started)
    scale, shift = tiles
    number = scale.dtype.type
    lif_kernels.fire(
        _rows(currents),
        scale,
        shift,
        number(constants.decay),
        number(constants.threshold),
        membrane is None,
        _rows(started[None])[0],
        _rows(ended[None])[0],
        _rows(spikes),
    )
    return _restored(spikes), _restored(ended, CHANNELS - 1)


def _state(potential: Tensor | None, currents: Tensor) -> Tensor:
    """``(N, C, ...)`` with the channels last; any numbers if there is none.

    Args:
        potential: of the neurons, or its gradient.
        currents: theirs, channels last.
    """
    if potential is None:
        return torch.empty(currents.shape[1:], dtype=_computed(currents))
    return _channels_last(potential, CHANNELS - 1)


def _factors(of_spikes: Tensor | None, currents: Tensor, time_steps: int) -> tuple[Tensor, Tensor]:
    """Gradients of spikes: factors ``(T,)``, of what is ``(T, N, ...)`` or ``(1, N, ...)``."""
    if of_spikes is None:
        return currents.new_zeros(time_steps), _restored(torch.zeros_like(currents[:1]))
    if isinstance(of_spikes, Weighted):
        return of_spikes.weights, of_spikes.step[None].to(currents.dtype)
    return of_spikes.new_ones(time_steps), of_spikes.to(currents.dtype)


def _through_norm(
    norm: Normalisation | None, of_currents: Tensor, currents: Tensor, sums: Any, products: Any
) -> tuple[Tensor | None, Tensor | None]:
    """Turn the gradient of what the norm gives, in place, into that of what it got.

    Returns the gradients of weight and bias.
    """
    if norm is None:
        return None, None
    # By NumPy: for so few numbers PyTorch takes longer to start than to compute.
    weight, mean, inverse_deviation = (
        each.detach().numpy() for each in (norm.weight, norm.mean, norm.inverse_deviation)
    )
    channels = len(weight)
    of_bias = _by_channel(sums, channels)
    of_weight = _by_channel(products, channels) * inverse_deviation
    scale = weight * inverse_deviation.astype(np.float64)
    slope, offset = np.zeros_like(scale), np.zeros_like(scale)
    if norm.of_batch:
        elements = currents.numel() / channels
        slope = -scale * inverse_deviation * of_weight / elements
        offset = -scale * of_bias / elements - slope * mean
    a, b, c = (_tiled(value.astype(weight.dtype)) for value in (scale, slope, offset))
    lif_kernels.combine(_rows(of_currents), _rows(currents), a, b, c)
    of_weight, of_bias = (each.astype(weight.dtype) for each in (of_weight, of_bias))
    return torch.from_numpy(of_weight), torch.from_numpy(of_bias)


def _normalisation(
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    inverse_deviation: Tensor | None,
    of_batch: bool,
) -> Normalisation | None:
    if weight is None or bias is None or mean is None or inverse_deviation is None:
        return None
    return Normalisation(weight, bias, mean, inverse_deviation, of_batch)


def _tiles(norm: Normalisation | None, currents: Tensor) -> tuple[Any, Any]:
    """Scale and shift of a tile, those of currents that are not normalised if there is no norm."""
    if norm is not None:
        return norm.tiles
    one = torch.ones(1, dtype=_computed(currents)).numpy()
    return _tiled(one), _tiled(one - one)


def _tiled(by_channel: Any) -> Any:
    least = math.lcm(len(by_channel), LANES) // len(by_channel)
    repeats = max(1, TILE // len(by_channel) // least) * least
    # Faster than what NumPy has for it.
    return np.concatenate([by_channel] * repeats)


def _by_channel(sums: Any, channels: int) -> Any:
    """Sums of pieces and places, ``(P, W)``, by channel, in float64."""
    total = np.zeros(channels)
    lif_kernels.add_pieces(sums, total)
    return total


def _pieces(tile: Any) -> Any:
    """Zeros for the sums of each piece, ``(P, W)``."""
    return np.zeros((lif_kernels.PIECES, len(tile)), tile.dtype)


def _channels_last(tensor: Tensor, axis: int = CHANNELS) -> Tensor:
    """``(..., C, ...)`` as ``(..., C)``, contiguous; copied only if it lies otherwise."""
    return (tensor.movedim(axis, -1) if tensor.dim() > axis else tensor).contiguous()


def _restored(tensor: Tensor, axis: int = CHANNELS) -> Tensor:
    return tensor.movedim(-1, axis) if tensor.dim() > axis else tensor


def _by_lanes(tensor: Tensor) -> Tensor:
    """``(T, ...)`` as ``(T, L)``, L a multiple of LANES: behind the values stand zeros."""
    return padded(tensor.detach().reshape(len(tensor), -1), LANES)


def _rows(tensor: Tensor) -> Any:
    """``(T, ...)`` as an array ``(T, L)`` of the same memory."""
    flat = tensor.detach().reshape(len(tensor), -1)
    return flat.view(torch.uint16).numpy() if flat.dtype == torch.bfloat16 else flat.numpy()


def _computed(tensor: Tensor) -> torch.dtype:
    """The precision in which values of a tensor's precision are computed."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
