"""Normalised LIF neurons on CUDA, with gradients.

Takes tensors ``(T, N, C, ...)`` and calls the kernels in :mod:`cuda_kernels`. Channels-last
currents are read in place and give channels-last spikes. Nothing here waits for the device.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from baselines.fused import cuda_kernels
from baselines.fused.cpu.lazy_tensors import WeightedSteps
from baselines.fused.cpu.lif import CHANNEL_AXIS, Normalisation
from baselines.fused.cpu.lif_constants import LIFConstants


def moments(currents: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance per channel, each ``(C,)``, of ``(T, N, C, ...)``."""
    steps = _with_dense_steps(currents.detach(), axes := _axes_by_memory(currents))
    means, squares = (_empty(currents.shape[1:], _without_time(axes), steps) for _ in range(2))
    arrays = steps, steps.stride(0), means, squares
    _launch(cuda_kernels.moments, currents.shape, arrays)
    others = [axis for axis in range(means.dim()) if axis != CHANNEL_AXIS - 1]
    variance_of_means, mean = torch.var_mean(means, others, correction=0)
    return mean, variance_of_means.add(squares.mean(others), alpha=1 / len(currents))


def lif_forward(
    currents: Tensor,
    membrane: Tensor | None,
    constants: LIFConstants,
    *,
    time_steps: int | None = None,
    norm: Normalisation | None = None,
    synapse_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Normalise currents and run the neurons through all time steps, with gradients.

    Args:
        currents: currents ``(T, N, C, ...)``, float32 or float64, T at least 1, or ``(1, N, C,
            ...)`` if they are the same at every step. Copied only if the neurons of a step are not
            dense in memory; any stride between steps is accepted, also 0.
        membrane: initial potentials ``(N, C, ...)``, in the dtype of the currents; None to start at
            rest.
        constants: constants of the neurons.
        time_steps: number of time steps T; None if the currents have T.
        norm: normalisation of the currents; None to leave them unchanged.
        synapse_bias: bias ``(C,)`` that the currents lack and the mean of the norm lacks too. It
            changes nothing but gets its gradient, which is 0 if the norm has the mean of the
            currents themselves.

    Returns:
        Spikes ``(T, N, C, ...)``, and the potentials ``(N, C, ...)`` after the last reset.
    """
    parameters: tuple[Tensor | None, ...] = (None,) * 4
    if norm is not None:
        parameters = norm.weight, norm.bias, norm.mean, norm.inverse_deviation
    from_batch = norm is not None and norm.from_batch
    call = constants, time_steps or len(currents), from_batch
    return _LIF.apply(currents, membrane, *parameters, synapse_bias, call)


def weighted_sum(spikes: Tensor, weights: Tensor) -> Tensor:
    """Return ``sum_t w_t * s_t``, ``(N, ...)``.

    Args:
        spikes: spikes ``(T, N, ...)`` in the dtype of the weights.
        weights: weights ``(T,)``.
    """
    steps = _with_dense_steps(spikes, axes := _axes_by_memory(spikes))
    total = _empty(spikes.shape[1:], _without_time(axes), like=weights)
    _launch(cuda_kernels.weighted_sum, spikes.shape, (steps, steps.stride(0), weights, total))
    return total


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
        synapse_bias: Tensor | None,
        call: tuple[LIFConstants, int, bool],
    ) -> tuple[Tensor, Tensor]:
        constants, time_steps, _ = call
        axes = _axes_by_memory(currents)
        steps = _with_dense_steps(currents, axes)
        initial = None if membrane is None else _with_dense_steps(membrane[None], axes)
        scale = None
        if weight is not None and inverse_deviation is not None:
            scale = weight * inverse_deviation
        ctx.save_for_backward(steps, initial, scale, bias, mean, inverse_deviation)
        ctx.set_materialize_grads(False)
        ctx.call, ctx.axes, ctx.shape = call, axes, (time_steps, *currents.shape[1:])
        ctx.repeated = len(currents) < time_steps
        spikes = _empty(ctx.shape, axes, like=currents)
        final = _empty(ctx.shape[1:], _without_time(axes), like=currents)
        norm = mean, scale, bias, *_channels(steps, axes, scale)
        arrays = steps, _stride(steps), *norm, initial, spikes, final
        threshold = _threshold(constants, steps)
        _launch(cuda_kernels.lif_forward, ctx.shape, arrays, constants.decay, threshold)
        return spikes, final

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_spikes: Tensor | None, grad_final: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        steps, initial, scale, bias, mean, inverse_deviation = ctx.saved_tensors
        constants, _, from_batch = ctx.call
        weights, grad_steps, grad_stride = _grad_products(grad_spikes, ctx.shape, ctx.axes, steps)
        places = _without_time(ctx.axes)
        grad_membrane, sums, products = (_empty(ctx.shape[1:], places, steps) for _ in range(3))
        if grad_final is None:
            grad_membrane.zero_()
        else:
            grad_membrane.copy_(grad_final)
        potentials = _empty(ctx.shape, ctx.axes, like=steps)
        channels = _channels(steps, ctx.axes, scale)
        norm = mean, scale, bias, *channels
        inputs = steps, _stride(steps), *norm, initial, weights, grad_steps, grad_stride
        outputs = potentials, grad_membrane, sums, products
        _launch(
            cuda_kernels.lif_backward,
            ctx.shape,
            (*inputs, *outputs),
            constants.decay,
            _threshold(constants, steps),
            constants.surrogate,
            constants.centre,
            constants.half_width,
            constants.width,
            constants.reset_gradient,
            ctx.repeated,
        )
        grad_currents = sums[None] if ctx.repeated else potentials
        grad_initial = grad_membrane if ctx.needs_input_grad[1] else None
        if scale is None:
            return grad_currents, grad_initial, *(None,) * 6
        others = [axis for axis in range(sums.dim()) if axis != CHANNEL_AXIS - 1]
        grad_bias, grad_product = sums.sum(others), products.sum(others)
        if from_batch:
            per_element = scale / -(steps.numel() // len(scale))
            offset = per_element * grad_bias
            slope = per_element * inverse_deviation.square() * grad_product
        else:
            slope = offset = torch.zeros_like(scale)
        arrays = grad_currents, steps, _stride(steps), mean, scale, slope, offset, *channels
        _launch(cuda_kernels.through_norm, (len(steps), *ctx.shape[1:]), arrays)
        grad_synapse = None
        if ctx.needs_input_grad[6]:
            grad_synapse = torch.zeros_like(scale) if from_batch else scale * grad_bias
        grad_weight = grad_product * inverse_deviation
        return grad_currents, grad_initial, grad_weight, grad_bias, None, None, grad_synapse, None


def _launch(
    kernel: Any, shape: Sequence[int], arrays: tuple[Any, ...], *constants: float | bool
) -> None:
    """Run a kernel on the device of its first array.

    Args:
        kernel: kernel whose arguments are the arrays, L, T and the constants.
        shape: shape ``(T, N, ...)`` of the currents.
        arrays: arrays, strides and sizes.
        *constants: constants of the neurons.
    """
    neurons = prod(shape[1:])
    grid = (triton.cdiv(neurons, cuda_kernels.BLOCK.value),)
    with torch.cuda.device_of(arrays[0]):
        kernel[grid](*arrays, neurons, shape[0], *constants, **cuda_kernels.OPTIONS)


def _grad_products(
    grad_spikes: Tensor | None, shape: tuple[int, ...], axes: list[int], like: Tensor
) -> tuple[Tensor | None, Tensor, int]:
    """Return the gradient of the spikes as factors per step, steps, and their distance.

    Args:
        grad_spikes: gradient ``(T, N, ...)``; None if there is none.
        shape: its shape.
        axes: order of the neurons' axes in memory.
        like: tensor ``(...)`` of its dtype and device.
    """
    if grad_spikes is None:
        return None, _empty((1, *shape[1:]), axes, like).zero_(), 0
    if isinstance(grad_spikes, WeightedSteps):
        return grad_spikes.weights, _with_dense_steps(grad_spikes.step[None], axes), 0
    steps = _with_dense_steps(grad_spikes, axes)
    return None, steps, steps.stride(0)


def _threshold(constants: LIFConstants, like: Tensor) -> float:
    """Return the number above which potentials in the dtype of a tensor ``(...)`` fire."""
    number = np.float64 if like.dtype == torch.float64 else np.float32
    return float(constants.exclusive_threshold(number))


def _stride(steps: Tensor) -> int:
    """Return the distance between the time steps of ``(T, ...)``; 0 if there is only one."""
    return steps.stride(0) if len(steps) > 1 else 0


def _channels(steps: Tensor, axes: list[int], scale: Tensor | None) -> tuple[int, int]:
    """Return the number of channels and their distance in a step; ones without a scale.

    Args:
        steps: currents, their axes in the order ``axes``, dense from the second one on.
        axes: order of the axes of ``(T, N, C, ...)`` in memory.
        scale: factor per channel ``(C,)``.
    """
    if scale is None:
        return 1, 1
    return len(scale), prod(steps.shape[axes.index(CHANNEL_AXIS) + 1 :])


def _without_time(axes: list[int]) -> list[int]:
    """Return the order of the axes of a single step, from the order in ``(T, N, ...)``."""
    return [axis - 1 for axis in axes[1:]]


def _axes_by_memory(tensor: Tensor) -> list[int]:
    """Return the axes of ``(T, N, ...)``: time, then from outermost to innermost in memory."""
    return [0, *sorted(range(1, tensor.dim()), key=tensor.stride, reverse=True)]


def _with_dense_steps(tensor: Tensor, axes: list[int]) -> Tensor:
    """Permute ``(T, N, ...)``; copy it if its steps are not contiguous then."""
    ordered = tensor.permute(axes)
    return ordered if ordered[0].is_contiguous() else ordered.contiguous()


def _empty(shape: Sequence[int], axes: list[int], like: Tensor) -> Tensor:
    """Return an uninitialised dense tensor.

    Args:
        shape: its shape ``(...)``.
        axes: order of its axes in memory.
        like: tensor ``(...)`` of its dtype and device.
    """
    return torch.empty_permuted(shape, axes, dtype=like.dtype, device=like.device)
