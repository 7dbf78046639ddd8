"""Triton kernels for LIF neurons with gradients on CUDA.

A program computes a block of neurons over all time steps. Neurons are one axis, in the memory order
of a step's currents, so channels-last currents are read in place and give channels-last spikes.
Nothing here waits for the device.
"""

from math import prod
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from baselines.fused.cpu.lif_constants import LIFConstants

# Neurons per program: 16 bytes of float32 for each of its threads, the widest load.
BLOCK = tl.constexpr(512)
# Without fused multiply-add, potentials are rounded as on the other backends. With it, neurons
# close to the threshold could spike on this backend only.
OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}


def lif_forward(
    currents: Tensor, membrane: Tensor | None, constants: LIFConstants
) -> tuple[Tensor, Tensor]:
    """Return spikes ``(T, N, ...)`` and the potentials ``(N, ...)`` after the last reset.

    Args:
        currents: currents ``(T, N, ...)``, float32 or float64, T at least 1. Copied only if the
            neurons of a step are not dense in memory; any stride between steps is accepted, also 0.
        membrane: initial potentials ``(N, ...)``, in the dtype of the currents; None to start at
            rest.
        constants: constants of the neurons.
    """
    return _LIF.apply(currents, membrane, constants)


class _LIF(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, currents: Tensor, membrane: Tensor | None, constants: LIFConstants
    ) -> tuple[Tensor, Tensor]:
        axes = _axes_by_memory(currents)
        steps = _with_dense_steps(currents, axes)
        initial = None if membrane is None else _with_dense_steps(membrane[None], axes)
        ctx.save_for_backward(steps, initial)
        ctx.set_materialize_grads(False)
        ctx.constants, ctx.axes, ctx.shape = constants, axes, currents.shape
        spikes = _empty(currents.shape, axes, like=currents)
        final = _empty((1, *currents.shape[1:]), axes, like=currents)
        arrays = steps, steps.stride(0), initial, spikes, final
        _launch(_lif_forward, ctx.shape, arrays, constants.decay, constants.threshold)
        return spikes, final[0]

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_spikes: Tensor | None, grad_final: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        steps, initial = ctx.saved_tensors
        grad_currents = _empty(ctx.shape, ctx.axes, like=steps)
        if grad_spikes is None:
            grad_spikes = torch.zeros_like(grad_currents)
        grad_steps = _with_dense_steps(grad_spikes, ctx.axes)
        grad_membrane = _empty((1, *ctx.shape[1:]), ctx.axes, like=steps)
        if grad_final is None:
            grad_membrane.zero_()
        else:
            grad_membrane.copy_(grad_final[None])
        constants = ctx.constants
        arrays = steps, steps.stride(0), initial, grad_currents
        _launch(_recompute, ctx.shape, arrays, constants.decay, constants.threshold)
        arrays = grad_steps, grad_steps.stride(0), grad_currents, grad_membrane
        _launch(_lif_backward, ctx.shape, arrays, *constants)
        return grad_currents, grad_membrane[0] if ctx.needs_input_grad[1] else None, None


@triton.jit
def _initial(
    membrane: tl.tensor, place: tl.tensor, exists: tl.tensor, number: tl.constexpr
) -> tl.tensor:
    """Return the potentials that a block of neurons starts from; 0 without a membrane.

    Args:
        membrane: initial potentials ``(L,)``; None to start at rest.
        place: indices of the neurons ``(BLOCK,)``.
        exists: True for the neurons below L ``(BLOCK,)``.
        number: dtype of the potentials.
    """
    # Triton also compiles the code after an early return, where the membrane is None.
    if membrane is None:
        potential = tl.zeros((BLOCK,), number)
    else:
        potential = tl.load(membrane + place, exists)
    return potential


@triton.jit
def _lif_forward(
    currents: tl.tensor,
    current_stride: tl.tensor,
    membrane: tl.tensor,
    spikes: tl.tensor,
    final: tl.tensor,
    neurons: tl.tensor,
    time_steps: tl.tensor,
    decay: tl.constexpr,
    threshold: tl.constexpr,
) -> None:
    """Compute the spikes of ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + x_t`` for a block of neurons.

    Args:
        currents: currents x ``(T, L)``.
        current_stride: distance between steps in ``currents``; other arrays are contiguous.
        membrane: initial potentials ``(L,)``; None to start at rest.
        spikes: spikes ``(T, L)``, written.
        final: potentials after the last reset ``(L,)``, written.
        neurons: number of neurons L.
        time_steps: number of time steps T.
        decay: factor of the potential per time step.
        threshold: potential above which a neuron fires.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = place < neurons
    state = _initial(membrane, place, exists, currents.dtype.element_ty)
    for _ in range(time_steps):
        potential = decay * state + tl.load(currents + place, exists)
        fires = potential - threshold > 0
        tl.store(spikes + place, fires.to(state.dtype), exists)
        state = tl.where(fires, 0.0, potential)
        currents += current_stride
        spikes += neurons
    tl.store(final + place, state, exists)


@triton.jit
def _recompute(
    currents: tl.tensor,
    current_stride: tl.tensor,
    membrane: tl.tensor,
    potentials: tl.tensor,
    neurons: tl.tensor,
    time_steps: tl.tensor,
    decay: tl.constexpr,
    threshold: tl.constexpr,
) -> None:
    """Compute the potentials before each reset for a block of neurons.

    Args:
        currents: currents x ``(T, L)``.
        current_stride: distance between steps in ``currents``.
        membrane: initial potentials ``(L,)``; None to start at rest.
        potentials: potentials ``(T, L)``, written.
        neurons: number of neurons L.
        time_steps: number of time steps T.
        decay: factor of the potential per time step.
        threshold: potential above which a neuron fires.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = place < neurons
    state = _initial(membrane, place, exists, currents.dtype.element_ty)
    for _ in range(time_steps):
        potential = decay * state + tl.load(currents + place, exists)
        tl.store(potentials + place, potential, exists)
        state = tl.where(potential - threshold > 0, 0.0, potential)
        currents += current_stride
        potentials += neurons


@triton.jit
def _lif_backward(
    grad_spikes: tl.tensor,
    grad_spike_stride: tl.tensor,
    grad_currents: tl.tensor,
    grad_membrane: tl.tensor,
    neurons: tl.tensor,
    time_steps: tl.tensor,
    decay: tl.constexpr,
    threshold: tl.constexpr,
    centre: tl.constexpr,
    width: tl.constexpr,
) -> None:
    """Compute the gradients of :func:`_lif_forward` for a block of neurons.

    Args:
        grad_spikes: gradients of the spikes ``(T, L)``.
        grad_spike_stride: distance between steps in ``grad_spikes``.
        grad_currents: potentials before each reset ``(T, L)``, replaced by the gradients of the
            currents.
        grad_membrane: gradients of the final potentials ``(L,)``, replaced by the gradients of the
            initial ones.
        neurons: number of neurons L.
        time_steps: number of time steps T.
        decay: factor of the potential per time step.
        threshold: potential above which a neuron fires.
        centre: centre of the surrogate gradient's window, relative to the threshold.
        width: width of the window; its height is ``1 / width``.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    exists = place < neurons
    # Step by step: a product of two of these could exceed 32 bits.
    for _ in range(1, time_steps):
        grad_spikes += grad_spike_stride
        grad_currents += neurons
    grad_state = tl.load(grad_membrane + place, exists)
    for _ in range(time_steps):
        potential = tl.load(grad_currents + place, exists)
        excess = potential - threshold
        grad_fire = (tl.load(grad_spikes + place, exists) - grad_state * potential) / width
        gradient = tl.where(tl.abs(excess - centre) < width / 2, grad_fire, 0.0)
        gradient += tl.where(excess > 0, 0.0, grad_state)
        tl.store(grad_currents + place, gradient, exists)
        grad_state = decay * gradient
        grad_spikes -= grad_spike_stride
        grad_currents -= neurons
    tl.store(grad_membrane + place, grad_state, exists)


def _launch(
    kernel: Any, shape: tuple[int, ...], arrays: tuple[Any, ...], *constants: float
) -> None:
    """Run a kernel on the device of its first array.

    Args:
        kernel: kernel whose arguments are the arrays, L, T and the constants.
        shape: shape ``(T, N, ...)`` of the currents.
        arrays: arrays and strides.
        *constants: constants of the neurons.
    """
    neurons = prod(shape[1:])
    grid = (triton.cdiv(neurons, BLOCK.value),)
    with torch.cuda.device_of(arrays[0]):
        kernel[grid](*arrays, neurons, shape[0], *constants, **OPTIONS)


def _axes_by_memory(tensor: Tensor) -> list[int]:
    """Return the axes of ``(T, N, ...)``: time, then from outermost to innermost in memory."""
    return [0, *sorted(range(1, tensor.dim()), key=tensor.stride, reverse=True)]


def _with_dense_steps(tensor: Tensor, axes: list[int]) -> Tensor:
    """Permute ``(T, N, ...)``; copy it if its steps are not contiguous then."""
    ordered = tensor.permute(axes)
    return ordered if ordered[0].is_contiguous() else ordered.contiguous()


def _empty(shape: tuple[int, ...], axes: list[int], like: Tensor) -> Tensor:
    """Return an uninitialised dense tensor.

    Args:
        shape: its shape ``(T, N, ...)``.
        axes: order of its axes in memory.
        like: tensor ``(...)`` of its dtype and device.
    """
    return torch.empty_permuted(shape, axes, dtype=like.dtype, device=like.device)
