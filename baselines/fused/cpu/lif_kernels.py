"""Numba kernels for normalised LIF neurons on the CPU and for the statistics of tdBN.

Arrays are ``(T, L)``: T time steps, and the L neurons of all images in memory order. Parameters per
channel are repeated to one *tile* of W values, which applies to each W consecutive neurons. Values
are float32, float64, or bfloat16 as ``uint16`` bits, which is computed in float32; spikes can also
be ``uint8``.

Work is cut into PIECES, each with sums of its own, so results do not depend on the number of
threads.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba
import numpy as np
import torch
from numba import float32, types, uint32
from numba.core import config
from numba.core.extending import intrinsic, overload

# Parts of the work, a fixed number; the sums of each are kept apart.
PIECES = 64
# Kernels whose arrays are all smaller run on one thread.
SMALL = 2**16
# Neurons per tile of `weighted_sum`.
SUMMED = 2**11


class Kernel:
    """A compiled function in two variants: on one thread, and on as many as PyTorch uses.

    The first is for small arrays: where other processes keep the cores busy, waiting for threads
    takes longer than the work itself.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        assert isinstance(function, FunctionType)
        self.__doc__ = function.__doc__
        serial = FunctionType(function.__code__, function.__globals__)
        # The name under which Numba caches the compiled function.
        serial.__qualname__ = f"{function.__qualname__}_serial"
        self._serial = numba.njit(serial, nogil=True, cache=True, error_model="numpy")
        self._parallel = numba.njit(
            function, parallel=True, nogil=True, cache=True, error_model="numpy"
        )

    def __call__(self, *arguments: Any) -> None:
        """Run on arrays, which the function changes in place, and on numbers."""
        available: int = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        threads = min(torch.get_num_threads(), available)
        if threads == 1 or _largest(arguments) < SMALL:
            self._serial(*arguments)
        else:
            numba.set_num_threads(threads)
            self._parallel(*arguments)


def _largest(arguments: tuple[Any, ...]) -> int:
    """Return the size of the largest array among the arguments."""
    return max([each.size for each in arguments if isinstance(each, np.ndarray)])


@intrinsic
def _float_from(context: Any, bits: Any) -> Any:
    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], target.get_value_type(types.float32))

    return float32(uint32), generate


@intrinsic
def _bits_of(context: Any, value: Any) -> Any:
    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], target.get_value_type(types.uint32))

    return uint32(float32), generate


def _number(stored):  # type: ignore[no-untyped-def]
    raise NotImplementedError("only within compiled code")


def _stored(number, like):  # type: ignore[no-untyped-def]
    raise NotImplementedError("only within compiled code")


@overload(_number, inline="always")
def _number_overload(stored):  # type: ignore[no-untyped-def]
    if stored == types.uint16:
        return lambda stored: _float_from(np.uint32(np.uint32(stored) << np.uint32(16)))
    return lambda stored: stored


@overload(_stored, inline="always")
def _stored_overload(number, like):  # type: ignore[no-untyped-def]
    if like == types.uint8:
        return lambda number, like: np.uint8(number)
    if like != types.uint16:
        return lambda number, like: number

    def to_nearest_even(number, like):  # type: ignore[no-untyped-def]
        bits = _bits_of(np.float32(number))
        half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return np.uint16((bits + half) >> np.uint32(16))

    return to_nearest_even


@Kernel
def fire(
    currents: Any,
    scale: Any,
    shift: Any,
    decay: Any,
    threshold: Any,
    rests: Any,
    started: Any,
    ended: Any,
    spikes: Any,
) -> None:
    """Compute the spikes of ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + scale * x_t + shift``.

    Args:
        currents: x, ``(T, L)``, or ``(1, L)`` for equal currents at each step.
        scale: ``(W,)``, factors of the currents.
        shift: ``(W,)``, offsets of the scaled currents.
        decay: decay of the potential.
        threshold: threshold that the potential must exceed to spike.
        rests: True to start at rest and ignore ``started``.
        started: ``(L,)``, potentials to start from.
        ended: ``(L,)``, written: potentials after the last step's reset.
        spikes: ``(T, L)``, written.
    """
    time_steps, neurons = spikes.shape
    width = scale.shape[0]
    tiles = (neurons + width - 1) // width
    moves = currents.shape[0] > 1
    rest = scale.dtype.type(0)
    none, one = _stored(rest, spikes[0, 0]), _stored(rest + 1, spikes[0, 0])
    for piece in numba.prange(PIECES):
        for tile in range(piece * tiles // PIECES, (piece + 1) * tiles // PIECES):
            first, last = tile * width, min((tile + 1) * width, neurons)
            state = ended[first:last]
            if rests:
                state[:] = rest
            else:
                state[:] = started[first:last]
            for t in range(time_steps):
                current = currents[t if moves else 0, first:last]
                spike = spikes[t, first:last]
                for i in range(last - first):
                    normalised = scale[i] * _number(current[i]) + shift[i]
                    potential = decay * state[i] + normalised
                    fires = potential - threshold > 0
                    spike[i] = one if fires else none
                    state[i] = rest if fires else potential


@Kernel
def combine(gradients: Any, currents: Any, a: Any, b: Any, c: Any) -> None:
    """Compute ``gradients = a * gradients + b * currents + c`` in place.

    Args:
        gradients: ``(T, L)``, overwritten.
        currents: ``(T, L)``.
        a: ``(W,)``.
        b: ``(W,)``.
        c: ``(W,)``.
    """
    time_steps, neurons = gradients.shape
    width = a.shape[0]
    tiles = (neurons + width - 1) // width
    for piece in numba.prange(PIECES):
        for tile in range(piece * tiles // PIECES, (piece + 1) * tiles // PIECES):
            first, last = tile * width, min((tile + 1) * width, neurons)
            for t in range(time_steps):
                gradient, current = gradients[t, first:last], currents[t, first:last]
                for i in range(last - first):
                    value = a[i] * _number(gradient[i]) + b[i] * _number(current[i]) + c[i]
                    gradient[i] = _stored(value, gradient[i])


@Kernel
def deviations(currents: Any, origin: Any, sums: Any, squares: Any) -> None:
    """Add up ``x - origin`` and its square over time steps and tiles.

    Args:
        currents: x, ``(T, L)``.
        origin: ``(W,)``, close to the mean so that the sums keep their digits.
        sums: ``(PIECES, W)``, to which the differences are added.
        squares: ``(PIECES, W)``, to which the squared differences are added.
    """
    time_steps, neurons = currents.shape
    width = origin.shape[0]
    tiles = (neurons + width - 1) // width
    for piece in numba.prange(PIECES):
        total, square = sums[piece], squares[piece]
        for tile in range(piece * tiles // PIECES, (piece + 1) * tiles // PIECES):
            first, last = tile * width, min((tile + 1) * width, neurons)
            for t in range(time_steps):
                current = currents[t, first:last]
                for i in range(last - first):
                    deviation = _number(current[i]) - origin[i]
                    total[i] += deviation
                    square[i] += deviation * deviation


@Kernel
def weighted_sum(spikes: Any, weights: Any, total: Any) -> None:
    """Compute ``total = sum_t weights_t * spikes_t``.

    Args:
        spikes: ``(T, L)`` uint8.
        weights: ``(T,)``.
        total: ``(L,)``, written.
    """
    time_steps, neurons = spikes.shape
    tiles = (neurons + SUMMED - 1) // SUMMED
    for piece in numba.prange(PIECES):
        for tile in range(piece * tiles // PIECES, (piece + 1) * tiles // PIECES):
            first, last = tile * SUMMED, min((tile + 1) * SUMMED, neurons)
            sums = total[first:last]
            sums[:] = 0
            for t in range(time_steps):
                weight, spike = weights[t], spikes[t, first:last]
                for i in range(last - first):
                    sums[i] += weight * spike[i]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def add_pieces(sums: Any, total: Any) -> None:
    """Add up the sums of all pieces and tile positions, per channel.

    Args:
        sums: ``(PIECES, W)``, W a multiple of C.
        total: ``(C,)`` float64, added to.
    """
    pieces, width = sums.shape
    channels = len(total)
    for piece in range(pieces):
        for first in range(0, width, channels):
            of_places = sums[piece, first : first + channels]
            for i in range(channels):
                total[i] += of_places[i]
