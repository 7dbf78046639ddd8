"""Triton kernels for LIF neurons with gradients on CUDA: one forward and one backward.

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

# 16 bytes of float32 for each thread of a program: the widest load.
BLOCK = 512
# Without fused multiply-add, potentials are rounded as on the other backends. With it, neurons
# close to the threshold could spike on this backend only.
OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}


def fire(
    currents: Tensor, membrane: Tensor | None, constants: LIFConstants
) -> tuple[Tensor, Tensor]:
    """Compute spikes ``(T, N, ...)`` and the potentials ``(N, ...)`` after the last reset.

    Args:
        currents: ``(T, N, ...)``, float32 or float64, T at least 1. Copied only if the neurons of a
            step are not dense in memory; any stride between steps is accepted, also 0.
        membrane: potentials to start from, ``(N, ...)``, in the precision of the currents; at rest
            if None.
        constants: constants of the neurons.
    """
    return _Firing.apply(currents, membrane, constants)


class _Firing(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, currents: Tensor, membrane: Tensor | None, constants: LIFConstants
    ) -> tuple[Tensor, Tensor]:
        axes = _axes_by_memory(currents)
        steps = _with_dense_steps(currents, axes)
        started = None if membrane is None else _with_dense_steps(membrane[None], axes)
        ctx.save_for_backward(steps, started)
        ctx.constants, ctx.axes, ctx.shape = constants, axes, currents.shape
        spikes = _empty(currents.shape, axes, like=currents)
        ended = _empty((1, *currents.shape[1:]), axes, like=currents)
        _launch(
            _fire,
            currents.shape,
            (steps, steps.stride(0), started, spikes, ended),
            decay=constants.decay,
            threshold=constants.threshold,
        )
        return spikes, ended[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        steps, started = ctx.saved_tensors
        of_spikes = _with_dense_steps(gradients[0], ctx.axes)
        of_ended = _with_dense_steps(gradients[1][None], ctx.axes)
        of_currents = _empty(ctx.shape, ctx.axes, like=steps)
        of_started = None
        if ctx.needs_input_grad[1]:
            of_started = _empty((1, *ctx.shape[1:]), ctx.axes, like=steps)
        constants = ctx.constants
        _launch(
            _fire_backward,
            ctx.shape,
            (
                steps,
                steps.stride(0),
                started,
                of_spikes,
                of_spikes.stride(0),
                of_ended,
                of_currents,
                of_started,
            ),
            decay=constants.decay,
            threshold=constants.threshold,
            centre=constants.centre,
            width=constants.width,
        )
        return of_currents, None if of_started is None else of_started[0], None


@triton.jit
def _at_start(
    membrane: tl.tensor,
    place: tl.tensor,
    exists: tl.tensor,
    number: tl.constexpr,
    block: tl.constexpr,
) -> tl.tensor:
    """Return the potentials that a block of neurons starts from; 0 without a membrane."""
    # Triton also compiles the code after an early return, where the membrane is None.
    if membrane is None:
        potential = tl.zeros((block,), number)
    else:
        potential = tl.load(membrane + place, exists)
    return potential


@triton.jit
def _fire(
    currents: tl.tensor,
    current_stride: tl.tensor,
    membrane: tl.tensor,
    spikes: tl.tensor,
    ended: tl.tensor,
    neurons: tl.tensor,
    time_steps: tl.tensor,
    decay: tl.constexpr,
    threshold: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Compute the spikes of ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + x_t`` for a block of neurons.

    Args:
        currents: x, ``(T, L)``.
        current_stride: distance between steps in ``currents``; other arrays are contiguous.
        membrane: ``(L,)``, potentials to start from; at rest if None.
        spikes: ``(T, L)``, written.
        ended: ``(L,)``, written: potentials after the last step's reset.
        neurons: L.
        time_steps: T.
        decay: decay of the potential.
        threshold: threshold that the potential must exceed to spike.
        block: number of neurons per program.
    """
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    exists = place < neurons
    state = _at_start(membrane, place, exists, currents.dtype.element_ty, block)
    for _ in range(time_steps):
        potential = decay * state + tl.load(currents + place, exists)
        fires = potential - threshold > 0
        tl.store(spikes + place, fires.to(state.dtype), exists)
        state = tl.where(fires, 0.0, potential)
        currents += current_stride
        spikes += neurons
    tl.store(ended + place, state, exists)


@triton.jit
def _fire_backward(
    currents: tl.tensor,
    current_stride: tl.tensor,
    membrane: tl.tensor,
    of_spikes: tl.tensor,
    of_spike_stride: tl.tensor,
    of_ended: tl.tensor,
    of_currents: tl.tensor,
    of_membrane: tl.tensor,
    neurons: tl.tensor,
    time_steps: tl.tensor,
    decay: tl.constexpr,
    threshold: tl.constexpr,
    centre: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """Compute the gradients of :func:`_fire`, whose potentials are recomputed.

    Args:
        currents: x, ``(T, L)``.
        current_stride: distance between consecutive steps in ``currents``.
        membrane: ``(L,)``, potentials that the neurons started from; at rest if None.
        of_spikes: gradients of the spikes, ``(T, L)``.
        of_spike_stride: distance between consecutive steps in ``of_spikes``.
        of_ended: gradients of the last potentials, ``(L,)``.
        of_currents: gradients of the currents, ``(T, L)``, written; holds the potentials meanwhile.
        of_membrane: gradients of the first potentials, ``(L,)``, written unless None.
        neurons: L.
        time_steps: T.
        decay: decay of the potential.
        threshold: threshold that the potential must exceed to spike.
        centre: centre of the surrogate gradient's window, minus the threshold.
        width: width of the window; its height is ``1 / width``.
        block: number of neurons per program.
    """
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    exists = place < neurons
    state = _at_start(membrane, place, exists, currents.dtype.element_ty, block)
    for _ in range(time_steps):
        potential = decay * state + tl.load(currents + place, exists)
        tl.store(of_currents + place, potential, exists)
        state = tl.where(potential - threshold > 0, 0.0, potential)
        currents += current_stride
        of_currents += neurons
        of_spikes += of_spike_stride
    # A potential can be read by another thread than the one that wrote it.
    tl.debug_barrier()
    of_state = tl.load(of_ended + place, exists)
    for _ in range(time_steps):
        of_currents -= neurons
        of_spikes -= of_spike_stride
        potential = tl.load(of_currents + place, exists)
        excess = potential - threshold
        of_firing = (tl.load(of_spikes + place, exists) - of_state * potential) / width
        gradient = tl.where(tl.abs(excess - centre) < width / 2, of_firing, 0.0)
        gradient += tl.where(excess > 0, 0.0, of_state)
        tl.store(of_currents + place, gradient, exists)
        of_state = decay * gradient
    if of_membrane is not None:
        tl.store(of_membrane + place, of_state, exists)


def _launch(
    kernel: Any, shape: tuple[int, ...], arrays: tuple[Any, ...], **constants: float
) -> None:
    """Run a kernel over all neurons of ``(T, N, ...)``, on the device of the first array."""
    neurons = prod(shape[1:])
    with torch.cuda.device_of(arrays[0]):
        kernel[(triton.cdiv(neurons, BLOCK),)](
            *arrays, neurons, shape[0], **constants, block=BLOCK, **OPTIONS
        )


def _axes_by_memory(tensor: Tensor) -> list[int]:
    """Return the axes of ``(T, N, ...)``: time, then from outermost to innermost in memory."""
    return [0, *sorted(range(1, tensor.dim()), key=tensor.stride, reverse=True)]


def _with_dense_steps(tensor: Tensor, axes: list[int]) -> Tensor:
    """Permute ``(T, N, ...)``; copy it if its steps are not contiguous then."""
    ordered = tensor.permute(axes)
    return ordered if ordered[0].is_contiguous() else ordered.contiguous()


def _empty(shape: tuple[int, ...], axes: list[int], like: Tensor) -> Tensor:
    """Return an uninitialised dense ``(T, N, ...)``, its axes in that order in memory."""
    return torch.empty_permuted(shape, axes, dtype=like.dtype, device=like.device)
