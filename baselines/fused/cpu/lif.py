"""Normalised LIF neurons on the CPU, with gradients.

Takes tensors ``(T, N, C, ...)`` and calls the kernels in :mod:`lif_kernels`. In the kernels, the
channels lie last in memory: this is the fastest layout of PyTorch's convolutions on a CPU, and
values per channel are then read as fast as values per neuron.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from baselines.fused.cpu import lif_backward_kernels, lif_kernels, periodic_kernels
from baselines.fused.cpu.aligned_memory import empty_aligned, padded
from baselines.fused.cpu.kernel import PIECES, Array
from baselines.fused.cpu.lazy_tensors import ByteSpikes, LowRankSteps, WeightedSteps, materialised
from baselines.fused.cpu.lif_backward_kernels import Gradients, SpikeGradients
from baselines.fused.cpu.lif_constants import LIFConstants
from baselines.fused.cpu.lif_kernels import MembraneRows, TileAffine
from baselines.fused.cpu.packed_spikes import PackedSpikeTensor
from baselines.fused.cpu.periodic import PeriodicSpikes
from baselines.fused.cpu.pooling import PooledGradient
from baselines.fused.cpu.simd import LANES

CHANNEL_AXIS = 2
# Neurons of a tile: what a step of theirs takes fits the first cache several times.
TILE = 1024
# Currents per channel whose mean is the origin of the sums for the variance.
FEW = 64


@dataclass(frozen=True)
class Normalisation:
    """``weight * (x - mean) * inverse_deviation + bias`` per channel.

    Attributes:
        weight: learned factor ``(C,)``.
        bias: learned summand ``(C,)``.
        mean: mean of the currents ``(C,)``, or of each time step ``(T, C)``.
        inverse_deviation: one over the standard deviation of the currents, shaped as ``mean``.
        from_batch: True if mean and deviation are statistics of the currents themselves, so that
            gradients flow through them.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    inverse_deviation: Tensor
    from_batch: bool

    @cached_property
    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift of the currents, each ``(C,)`` or ``(T, C)``, as ``mean``."""
        scale = self.weight * self.inverse_deviation
        return scale, self.bias - self.mean * scale

    @cached_property
    def tiles(self) -> TileAffine:
        """Scale and shift for the neurons of a tile."""
        scale, shift = self.affine
        return TileAffine(_tiled(scale.numpy()), _tiled(shift.numpy()))


def moments(currents: Tensor, per_step: bool = False) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance per channel of currents ``(T, N, C, ...)``.

    Args:
        currents: currents ``(T, N, C, ...)``.
        per_step: True for the moments of each time step.

    Returns:
        Means and variances, each ``(C,)``, or ``(T, C)`` if ``per_step``.
    """
    by_channel = _channels_last(currents.detach())
    channels, steps = by_channel.shape[-1], len(by_channel) if per_step else 1
    # The first values are near enough to the mean for the sums to keep their digits.
    few = by_channel.reshape(steps, -1, channels)[:, :FEW]
    origin = few.to(_number_type(currents)).mean(1)
    tile = _tiled(origin.numpy())
    sums, squares = _zeros_per_piece(tile), _zeros_per_piece(tile)
    lif_kernels.sum_deviations(_rows(by_channel), tile, sums, squares)
    elements = by_channel.numel() / (channels * steps)
    offset, square = (_by_channel(each, channels) / elements for each in (sums, squares))
    both = np.stack([origin.numpy() + offset, np.maximum(square - offset**2, 0)])
    mean, variance = torch.from_numpy(both).to(origin.dtype)
    return (mean, variance) if per_step else (mean[0], variance[0])


def lif_forward(
    currents: Tensor,
    membrane: Tensor | None,
    time_steps: int,
    constants: LIFConstants,
    norm: Normalisation | None,
    in_bytes: bool,
    periodic: bool = False,
) -> tuple[Tensor, Tensor]:
    """Normalise currents and run the neurons through all time steps, with gradients.

    Args:
        currents: currents ``(T, N, C, ...)``, or ``(1, N, C, ...)`` if they are the same at every
            step.
        membrane: initial potential ``(N, C, ...)``; None to start at rest.
        time_steps: number of time steps T.
        constants: constants of the neurons.
        norm: normalisation of the currents; None to leave them unchanged.
        in_bytes: True to return uint8 spikes where no gradient can flow, and :class:`ByteSpikes`
            elsewhere; False to return spikes in the dtype of the currents.
        periodic: True to return :class:`PeriodicSpikes` and no potential; only for currents that
            are the same at every step, and neurons at rest.

    Returns:
        Spikes ``(T, N, C, ...)``, and the potential ``(N, C, ...)`` after the last reset.
    """
    call = _Call(constants, time_steps, torch.uint8 if in_bytes else currents.dtype, periodic)
    if not torch.is_grad_enabled():
        by_channel = _channels_last(materialised(currents))
        return _forward(by_channel, membrane, _tiles(norm, by_channel), call)
    parameters: tuple[Tensor | None, ...] = (None,) * 4
    if norm is not None:
        parameters = norm.weight, norm.bias, norm.mean, norm.inverse_deviation
    from_batch = norm is not None and norm.from_batch
    return _LIF.apply(currents, membrane, *parameters, from_batch, call)


def weighted_sum(spikes: Tensor, weights: Tensor) -> Tensor:
    """Return ``sum_t w_t * s_t``, ``(N, C, ...)``.

    Args:
        spikes: spikes ``(T, N, C, ...)``, packed or uint8.
        weights: weights ``(T,)``.
    """
    if isinstance(spikes, PackedSpikeTensor):
        return spikes.weighted_sum(weights)
    by_channel = _channels_last(spikes)
    total = torch.empty(by_channel.shape[1:], dtype=weights.dtype)
    lif_kernels.weighted_sum(_rows(by_channel), weights.numpy(), _row(total))
    return _channels_restored(total, CHANNEL_AXIS - 1)


class _Call(NamedTuple):
    """Arguments of a call of the neurons that are not tensors.

    Attributes:
        constants: constants of the neurons.
        time_steps: number of time steps T.
        dtype: dtype of the spikes that are written.
        periodic: True to write periods instead.
    """

    constants: LIFConstants
    time_steps: int
    dtype: torch.dtype
    periodic: bool


class _LIF(torch.autograd.Function):
    """Neurons with gradients; the tensors of the norm are separate arguments."""

    @staticmethod
    def forward(
        ctx: Any,
        currents: Tensor,
        membrane: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor | None,
        inverse_deviation: Tensor | None,
        from_batch: bool,
        call: _Call,
    ) -> tuple[Tensor, Tensor]:
        by_channel = _channels_last(materialised(currents))
        norm = _normalisation((weight, bias, mean, inverse_deviation), from_batch)
        ctx.save_for_backward(by_channel, membrane, weight, bias, mean, inverse_deviation)
        ctx.from_batch, ctx.call, ctx.tiles = from_batch, call, _tiles(norm, by_channel)
        ctx.set_materialize_grads(False)
        spikes, final = _forward(by_channel, membrane, ctx.tiles, call)
        if call.periodic or call.dtype == currents.dtype:
            return spikes, final
        return ByteSpikes(spikes, currents.dtype), final

    @staticmethod
    def backward(
        ctx: Any, grad_spikes: Tensor | None, grad_final: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        currents, membrane, *parameters = ctx.saved_tensors
        norm = _normalisation(parameters, ctx.from_batch)
        grad_membrane, rows = _state(grad_final, currents), _vector_rows(currents)
        grad_state = padded(grad_membrane.view(-1), LANES)
        dtype = currents.dtype if len(currents) > 1 else grad_membrane.dtype
        grad_rows = empty_aligned(rows.shape, dtype)
        mean = np.zeros(1, ctx.tiles.scale.dtype) if norm is None else norm.mean.numpy()
        gradients = Gradients(
            currents=_rows(grad_rows),
            membrane=grad_state.numpy(),
            sums=_zeros_per_piece(ctx.tiles.scale),
            products=_zeros_per_piece(ctx.tiles.scale),
            mean=_tiled(mean),
        )
        lif_backward_kernels.lif_backward(
            rows,
            ctx.tiles,
            ctx.call.constants.scalars(ctx.tiles.scale),
            membrane=_padded_membrane(membrane, grad_state),
            grad_spikes=_grad_products(grad_spikes, currents, ctx.call.time_steps),
            gradients=gradients,
        )
        grad_weight = grad_bias = None
        if norm is not None:
            elements = currents.numel() // norm.mean.numel()
            grad_weight, grad_bias = _through_norm(norm, rows, gradients, elements)
        neurons = grad_membrane.numel()
        grad_currents = grad_rows[:, :neurons].reshape(currents.shape).to(currents.dtype)
        grad_initial = grad_state[:neurons].view(grad_membrane.shape)
        return (
            _channels_restored(grad_currents),
            _channels_restored(grad_initial, CHANNEL_AXIS - 1) if ctx.needs_input_grad[1] else None,
            grad_weight,
            grad_bias,
            *(None,) * 4,
        )


def _forward(
    currents: Tensor, membrane: Tensor | None, tiles: TileAffine, call: _Call
) -> tuple[Tensor, Tensor]:
    """Run the neurons; see :func:`lif_forward`.

    Args:
        currents: currents ``(T, N, ..., C)`` or ``(1, N, ..., C)``.
        membrane: initial potential ``(N, C, ...)``; None to start at rest.
        tiles: scale and shift of the currents.
        call: constants, time steps and dtype.
    """
    if call.periodic:
        return _periods(currents, tiles, call), currents.new_empty(0)
    spikes = empty_aligned((call.time_steps, *currents.shape[1:]), call.dtype)
    final = currents.new_empty(currents.shape[1:], dtype=_number_type(currents))
    membrane_rows = _membrane_rows(membrane, final)
    constants = call.constants.scalars(tiles.scale)
    lif_kernels.lif_forward(_rows(currents), tiles, constants, membrane_rows, _rows(spikes))
    return _channels_restored(spikes), _channels_restored(final, CHANNEL_AXIS - 1)


def _periods(currents: Tensor, tiles: TileAffine, call: _Call) -> PeriodicSpikes:
    """Run neurons at rest whose currents ``(1, N, ..., C)`` are the same at every step."""
    periods = torch.empty(currents.shape, dtype=torch.uint8)
    constants = call.constants.scalars(tiles.scale)
    periodic_kernels.find_periods(
        _rows(currents), tiles, constants, time_steps=call.time_steps, periods=_rows(periods)
    )
    restored = _channels_restored(periods)[0]
    return PeriodicSpikes(restored, call.time_steps, _number_type(currents))


def _membrane_rows(membrane: Tensor | None, final: Tensor) -> MembraneRows:
    """Return initial potentials ``(N, C, ...)``, rest if None, and final ones ``(N, ..., C)``."""
    initial = final if membrane is None else _channels_last(membrane, CHANNEL_AXIS - 1)
    return MembraneRows(_row(initial), _row(final), membrane is None)


def _padded_membrane(membrane: Tensor | None, final: Tensor) -> MembraneRows:
    """Return initial potentials ``(N, C, ...)``, rest if None, and final ones ``(L,)``, padded."""
    if membrane is None:
        return MembraneRows(final.numpy(), final.numpy(), True)
    initial = _vector_rows(_channels_last(membrane, CHANNEL_AXIS - 1)[None])[0]
    return MembraneRows(initial, final.numpy(), False)


def _state(grad_final: Tensor | None, currents: Tensor) -> Tensor:
    """Return a new tensor ``(N, ..., C)`` with the gradient of the final potentials.

    Args:
        grad_final: gradient ``(N, C, ...)``; None if there is none.
        currents: currents ``(T, N, ..., C)``.
    """
    if grad_final is None:
        return currents.new_zeros(currents.shape[1:], dtype=_number_type(currents))
    return _channels_last(grad_final, CHANNEL_AXIS - 1).clone()


def _grad_products(grad_spikes: Tensor | None, currents: Tensor, time_steps: int) -> SpikeGradients:
    """Return the gradient of the spikes as products.

    Args:
        grad_spikes: gradient ``(T, N, C, ...)``, perhaps :class:`WeightedSteps` or
            :class:`LowRankSteps`; None if there is none.
        currents: currents ``(T, N, ..., C)`` or ``(1, N, ..., C)``.
        time_steps: number of time steps T.
    """
    number_type, channels_of = _number_type(currents), currents.shape[-1]
    factors, weights = currents.new_ones(time_steps), currents.new_zeros((time_steps, 0, 1))
    steps, maps = torch.zeros_like(currents[:1]), currents.new_zeros((0, 1, 1))
    width = channels = 0
    if isinstance(grad_spikes, WeightedSteps):
        factors, steps = grad_spikes.weights, _channels_last(grad_spikes.step[None])
    elif isinstance(grad_spikes, LowRankSteps) and currents[0, 0].numel() % LANES == 0:
        weights, maps = grad_spikes.weights, grad_spikes.maps.movedim(2, -1).flatten(2)
        steps = currents.new_empty((time_steps, 0))
    elif isinstance(grad_spikes, PooledGradient) and channels_of % LANES == 0:
        width, channels = currents.shape[-2], channels_of
        factors = grad_spikes.averages.new_full((time_steps,), 1 / 4)
        steps = _channels_last(grad_spikes.averages)
    elif grad_spikes is not None:
        steps = _channels_last(materialised(grad_spikes))
    rows = _vector_rows(steps.to(currents.dtype))
    numbers = [each.to(number_type).contiguous().numpy() for each in (factors, weights, maps)]
    return SpikeGradients(
        numbers[0], rows, weights=numbers[1], maps=numbers[2], width=width, channels=channels
    )


def _through_norm(
    norm: Normalisation, currents: Array, gradients: Gradients, elements: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the norm's weight and bias, each ``(C,)``.

    In ``gradients``, the gradients of the normalised currents become gradients of the currents.

    Args:
        norm: normalisation that was applied.
        currents: currents ``(T, L)`` or ``(1, L)``, L a multiple of LANES.
        gradients: gradients of the normalised currents, and their sums.
        elements: number of currents per channel and mean.
    """
    # In NumPy: for so few numbers PyTorch takes longer to start than to compute.
    weight, mean, inverse_deviation = (
        each.detach().numpy() for each in (norm.weight, norm.mean, norm.inverse_deviation)
    )
    channels = len(weight)
    grad_bias = _by_channel(gradients.sums, channels)
    grad_weight = _by_channel(gradients.products, channels) * inverse_deviation
    scale = np.atleast_2d(weight * inverse_deviation.astype(np.float64))
    slope, offset = np.zeros_like(scale), np.zeros_like(scale)
    if norm.from_batch:
        slope = -scale * inverse_deviation * grad_weight / elements
        offset = -scale * grad_bias / elements - slope * mean
    a, b, c = (_tiled(each.astype(weight.dtype)) for each in (scale, slope, offset))
    lif_kernels.add_scaled(gradients.currents, currents, a, b, c)
    grad_weight, grad_bias = (each.sum(0).astype(weight.dtype) for each in (grad_weight, grad_bias))
    return torch.from_numpy(grad_weight), torch.from_numpy(grad_bias)


def _normalisation(parameters: Sequence[Tensor | None], from_batch: bool) -> Normalisation | None:
    """Return the normalisation of four tensors ``(C,)`` in its order; None if any is missing."""
    weight, bias, mean, inverse_deviation = parameters
    if weight is None or bias is None or mean is None or inverse_deviation is None:
        return None
    return Normalisation(weight, bias, mean, inverse_deviation, from_batch)


def _tiles(norm: Normalisation | None, currents: Tensor) -> TileAffine:
    """Return scale and shift for the neurons of a tile; 1 and 0 without a norm.

    Args:
        norm: normalisation to apply.
        currents: currents of any shape ``(...)``.
    """
    if norm is not None:
        return norm.tiles
    one = torch.ones(1, dtype=_number_type(currents)).numpy()
    return TileAffine(_tiled(one), _tiled(one - one))


def _tiled(by_channel: Array) -> Array:
    """Return values ``(C,)`` or ``(S, C)`` repeated for the neurons of a tile, ``(S, V)``."""
    rows = np.atleast_2d(by_channel)
    channels = rows.shape[1]
    least = math.lcm(channels, LANES) // channels
    repeats = max(1, TILE // channels // least) * least
    # Faster than numpy.tile.
    return np.concatenate([rows] * repeats, axis=1)


def _by_channel(sums: Array, channels: int) -> Array:
    """Return sums ``(P, S, V)`` added up per channel, ``(S, C)`` float64."""
    total = np.zeros((sums.shape[1], channels))
    lif_kernels.add_pieces(sums, total)
    return total


def _zeros_per_piece(tile: Array) -> Array:
    """Return zeros ``(P, S, V)`` for the sums over tiles ``(S, V)``.

    P is PIECES, or 1 for tiles of so many neurons that the pieces share them.
    """
    return np.zeros((PIECES if tile.shape[1] <= TILE else 1, *tile.shape), tile.dtype)


def _channels_last(tensor: Tensor, axis: int = CHANNEL_AXIS) -> Tensor:
    """Return ``(..., C, ...)`` as contiguous ``(..., C)``; copies only if the layout differs."""
    return (tensor.movedim(axis, -1) if tensor.dim() > axis else tensor).contiguous()


def _channels_restored(tensor: Tensor, axis: int = CHANNEL_AXIS) -> Tensor:
    """Return ``(..., C)`` as ``(..., C, ...)``; the inverse of :func:`_channels_last`."""
    return tensor.movedim(-1, axis) if tensor.dim() > axis else tensor


def _rows(tensor: Tensor) -> Array:
    """Return a contiguous tensor ``(T, ...)`` as an array ``(T, L)`` on the same memory."""
    flat = tensor.detach().reshape(len(tensor), -1)
    return flat.view(torch.uint16).numpy() if flat.dtype == torch.bfloat16 else flat.numpy()


def _vector_rows(tensor: Tensor) -> Array:
    """Return ``(T, ...)`` as an array ``(T, L)``, zero-padded to a multiple of LANES."""
    return _rows(padded(tensor.detach().reshape(len(tensor), -1), LANES))


def _row(tensor: Tensor) -> Array:
    """Return a contiguous tensor ``(...)`` as an array ``(L,)`` on the same memory."""
    return _rows(tensor[None])[0]


def _number_type(tensor: Tensor) -> torch.dtype:
    """Return the dtype in which values of a tensor of any shape ``(...)`` are computed."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
