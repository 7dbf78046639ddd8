"""Normalised LIF neurons with gradients on the CPU: the PyTorch interface of the kernels.

The kernels are in :mod:`lif_kernels` and :mod:`lif_backward_kernels`. Tensors are
``(T, N, C, ...)`` with the channels last in memory, which is fastest for convolutions on a CPU and
lets kernels read parameters per channel as fast as constants.
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

# Axis of the channels.
CHANNELS = 2
# Approximate number of neurons per tile.
TILE = 1024
# Values per channel from which an estimate of the mean is computed.
FEW = 64


@dataclass(frozen=True)
class Normalisation:
    """``weight * (x - mean) * inverse_deviation + bias`` per channel, each ``(C,)``.

    Attributes:
        weight: learned scale.
        bias: learned offset.
        mean: mean of the currents, or a running mean.
        inverse_deviation: one over the standard deviation.
        of_batch: True if mean and deviation are statistics of the currents, so that gradients flow
            through them.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    inverse_deviation: Tensor
    of_batch: bool

    @cached_property
    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift ``(C,)`` of the equivalent ``scale * x + shift``."""
        scale = self.weight * self.inverse_deviation
        return scale, self.bias - self.mean * scale

    @cached_property
    def tiles(self) -> tuple[Any, Any]:
        """Scale and shift ``(W,)``, repeated for a tile of neurons."""
        scale, shift = self.affine
        return _tiled(scale.numpy()), _tiled(shift.numpy())


def moments(currents: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and biased variance per channel, each ``(C,)``, of ``(T, N, C, ...)``."""
    laid_out = _channels_last(currents.detach())
    channels = laid_out.shape[-1]
    # The mean of the first values is close enough for the sums to keep their digits.
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
    """Compute spikes ``(T, N, C, ...)`` and the potentials ``(N, C, ...)`` after the last reset.

    Args:
        currents: ``(T, N, C, ...)``, or ``(1, N, C, ...)`` for equal currents at each step.
        membrane: potentials to start from, ``(N, C, ...)``; at rest if None.
        time_steps: T.
        constants: constants of the neurons.
        norm: normalisation to apply to the currents first.
        in_bytes: True to return uint8 spikes; if gradients are enabled, :class:`Spikes` instead.
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
    """Compute ``sum_t w_t * s_t``, ``(N, C, ...)``, of binary spikes ``(T, N, C, ...)``."""
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
    """Compute spikes and last potentials for currents ``(T, N, ..., C)``, see :func:`fire`."""
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
    """Return potentials or their gradients as ``(N, ..., C)``; uninitialised values for None.

    Args:
        potential: ``(N, C, ...)`` or None.
        currents: currents of the neurons, ``(T, N, ..., C)``.
    """
    if potential is None:
        return torch.empty(currents.shape[1:], dtype=_computed(currents))
    return _channels_last(potential, CHANNELS - 1)


def _factors(of_spikes: Tensor | None, currents: Tensor, time_steps: int) -> tuple[Tensor, Tensor]:
    """Split gradients of spikes into factors and gradients whose product they are.

    Args:
        of_spikes: gradients of the spikes, ``(T, N, C, ...)``; zero if None.
        currents: ``(T, N, ..., C)``.
        time_steps: T.

    Returns:
        Factors ``(T,)``, and gradients ``(T, N, C, ...)`` or ``(1, N, C, ...)``.
    """
    if of_spikes is None:
        return currents.new_zeros(time_steps), _restored(torch.zeros_like(currents[:1]))
    if isinstance(of_spikes, Weighted):
        return of_spikes.weights, of_spikes.step[None].to(currents.dtype)
    return of_spikes.new_ones(time_steps), of_spikes.to(currents.dtype)


def _through_norm(
    norm: Normalisation | None, of_currents: Tensor, currents: Tensor, sums: Any, products: Any
) -> tuple[Tensor | None, Tensor | None]:
    """Convert gradients of the normalised currents, in place, to gradients of the currents.

    Args:
        norm: normalisation, if any.
        of_currents: gradients of the normalised currents, ``(T, N, ..., C)``, overwritten.
        currents: ``(T, N, ..., C)``.
        sums: ``(PIECES, W)``, sums of the gradients.
        products: ``(PIECES, W)``, sums of the gradients times ``x - mean``.

    Returns:
        Gradients of weight and bias, each ``(C,)``, or None without a normalisation.
    """
    if norm is None:
        return None, None
    # NumPy is faster than PyTorch for arrays this small.
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
    """Return scale and shift ``(W,)`` of a tile; 1 and 0 without a normalisation."""
    if norm is not None:
        return norm.tiles
    one = torch.ones(1, dtype=_computed(currents)).numpy()
    return _tiled(one), _tiled(one - one)


def _tiled(by_channel: Any) -> Any:
    """Repeat values ``(C,)`` to a tile ``(W,)`` of about TILE; W is a multiple of LANES."""
    least = math.lcm(len(by_channel), LANES) // len(by_channel)
    repeats = max(1, TILE // len(by_channel) // least) * least
    # Faster than np.tile.
    return np.concatenate([by_channel] * repeats)


def _by_channel(sums: Any, channels: int) -> Any:
    """Add up the sums of pieces and tile positions ``(P, W)`` per channel, in float64."""
    total = np.zeros(channels)
    lif_kernels.add_pieces(sums, total)
    return total


def _pieces(tile: Any) -> Any:
    """Return zeros for the sums of each piece, ``(PIECES, W)``."""
    return np.zeros((lif_kernels.PIECES, len(tile)), tile.dtype)


def _channels_last(tensor: Tensor, axis: int = CHANNELS) -> Tensor:
    """Return ``(..., C, ...)`` as contiguous ``(..., C)``; a copy only if necessary."""
    return (tensor.movedim(axis, -1) if tensor.dim() > axis else tensor).contiguous()


def _restored(tensor: Tensor, axis: int = CHANNELS) -> Tensor:
    """Move the channels of ``(..., C)`` back to an axis."""
    return tensor.movedim(-1, axis) if tensor.dim() > axis else tensor


def _by_lanes(tensor: Tensor) -> Tensor:
    """Flatten ``(T, ...)`` to ``(T, L)``, zero-padded to L, a multiple of LANES."""
    return padded(tensor.detach().reshape(len(tensor), -1), LANES)


def _rows(tensor: Tensor) -> Any:
    """Return ``(T, ...)`` as an array ``(T, L)`` of the same memory."""
    flat = tensor.detach().reshape(len(tensor), -1)
    return flat.view(torch.uint16).numpy() if flat.dtype == torch.bfloat16 else flat.numpy()


def _computed(tensor: Tensor) -> torch.dtype:
    """Return the precision in which a tensor's values are computed."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
