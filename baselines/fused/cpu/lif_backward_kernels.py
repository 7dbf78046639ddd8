"""Numba kernel for the backward pass of normalised LIF neurons on the CPU.

Arrays are as in :mod:`lif_kernels`, except that the number of neurons L and the width W of a tile
are multiples of LANES.
"""

from typing import Any

import numba
import numpy as np

from baselines.fused.cpu.lif_kernels import PIECES, Kernel
from baselines.fused.cpu.simd import (
    LANES,
    item,
    load,
    minus,
    numbers,
    plus,
    positive,
    spread,
    store,
    stored,
    stream,
    streamed,
    times,
    where,
    within,
)

# Neurons whose values are read in one stretch per step: longer stretches are read faster, and these
# still fit the core's first-level cache.
TOGETHER = 128


@numba.njit(inline="always")
def _read(source: Any, stride: Any, steps: Any, first: Any, count: Any, near: Any) -> None:
    """Copy the values of ``count`` neurons at each step to a buffer, as float32 or float64.

    Args:
        source: ``(steps, stride)``, flat.
        stride: distance between consecutive steps in ``source``.
        steps: number of time steps.
        first: first neuron.
        count: number of neurons, at most TOGETHER.
        near: ``(steps, TOGETHER)``, flat, written.
    """
    for t in range(steps):
        for i in range(0, count, LANES):
            store(near, t * TOGETHER + i, numbers(load(source, t * stride + first + i)))


@numba.njit(inline="always")
def _potentials(
    currents: Any,
    step: Any,
    steps: Any,
    scale: Any,
    shift: Any,
    decays: Any,
    thresholds: Any,
    rest: Any,
    state: Any,
    potentials: Any,
) -> None:
    """Recompute the potentials of LANES neurons.

    Args:
        currents: flat array that begins with the neurons' currents at the first step.
        step: distance between consecutive steps in ``currents``; 0 for equal currents at each step.
        steps: number of time steps.
        scale: LANES factors of the currents.
        shift: LANES offsets of the scaled currents.
        decays: decay of the potential, in every lane.
        thresholds: threshold that the potential must exceed to spike, in every lane.
        rest: zeros, the potential after a reset.
        state: LANES potentials to start from.
        potentials: ``(steps, LANES)``, flat, written: potentials before the reset.
    """
    for t in range(steps):
        current = plus(times(scale, load(currents, t * step)), shift)
        reached = plus(times(decays, state), current)
        store(potentials, t * LANES, reached)
        state = where(positive(minus(reached, thresholds)), rest, reached)


@Kernel
def fire_backward(
    currents: Any,
    mean: Any,
    scale: Any,
    shift: Any,
    decay: Any,
    threshold: Any,
    centre: Any,
    half: Any,
    height: Any,
    rests: Any,
    membrane: Any,
    factors: Any,
    of_spikes: Any,
    leaves: Any,
    of_membrane: Any,
    of_normalised: Any,
    sums: Any,
    products: Any,
) -> None:
    """Compute the gradients of :func:`lif_kernels.fire`, whose potentials are recomputed.

    Args:
        currents: x, ``(T, L)``, or ``(1, L)`` for equal currents at each step.
        mean: ``(W,)``, subtracted from the currents in ``products``.
        scale: ``(W,)``, factors of the currents.
        shift: ``(W,)``, offsets of the scaled currents.
        decay: decay of the potential.
        threshold: threshold that the potential must exceed to spike.
        centre: centre of the surrogate gradient's window, minus the threshold.
        half: half the width of the window.
        height: height of the window.
        rests: True if the neurons started at rest; ``membrane`` is then ignored.
        membrane: ``(L,)``, potentials that the neurons started from.
        factors: ``(T,)``, factors of ``of_spikes``.
        of_spikes: gradients of the spikes, ``(T, L)``, or ``(1, L)`` for the same at each step.
        leaves: True if the last potentials have no gradient; ``of_membrane`` is then not read.
        of_membrane: ``(L,)``, gradients of the last potentials; overwritten with the gradients of
            the first potentials.
        of_normalised: gradients of ``scale * x + shift``, written. ``(1, L)`` if ``currents`` is
            ``(1, L)``; else ``(T, L)``, written with streaming stores, which must begin at a
            multiple of CACHE_LINE.
        sums: ``(PIECES, W)``, to which the gradients of ``scale * x + shift`` are added.
        products: ``(PIECES, W)``, to which these gradients times ``x - mean`` are added.
    """
    time_steps, neurons, width = len(factors), len(of_membrane), len(scale)
    tiles = (neurons + width - 1) // width
    moves, differ = currents.shape[0] > 1, of_spikes.shape[0] > 1
    all_currents, all_of_spikes = currents.reshape(-1), of_spikes.reshape(-1)
    written, all_sums, all_products = (
        of_normalised.reshape(-1),
        sums.reshape(-1),
        products.reshape(-1),
    )
    for piece in numba.prange(PIECES):
        decays, thresholds, rest = spread(decay), spread(threshold), spread(decay - decay)
        centres, halves, heights = spread(centre), spread(half), spread(height)
        near = np.empty(time_steps * TOGETHER, scale.dtype)
        of_near, potentials = np.empty_like(near), np.empty(time_steps * LANES, scale.dtype)
        for tile in range(piece * tiles // PIECES, (piece + 1) * tiles // PIECES):
            end = min((tile + 1) * width, neurons)
            for first in range(tile * width, end, TOGETHER):
                count = min(TOGETHER, end - first)
                _read(all_currents, neurons, time_steps if moves else 1, first, count, near)
                _read(all_of_spikes, neurons, time_steps if differ else 1, first, count, of_near)
                for i in range(0, count, LANES):
                    neuron, place = first + i, first + i - tile * width
                    at = piece * width + place
                    _potentials(
                        near[i:],
                        TOGETHER if moves else 0,
                        time_steps,
                        load(scale, place),
                        load(shift, place),
                        decays,
                        thresholds,
                        rest,
                        rest if rests else load(membrane, neuron),
                        potentials,
                    )
                    of_state = rest if leaves else load(of_membrane, neuron)
                    total, product, of_all = load(all_sums, at), load(all_products, at), rest
                    for t in range(time_steps - 1, -1, -1):
                        potential = load(potentials, t * LANES)
                        excess = minus(potential, thresholds)
                        of_spike = load(of_near, (t * TOGETHER if differ else 0) + i)
                        of_spiking = times(spread(item(factors, t)), of_spike)
                        of_firing = times(minus(of_spiking, times(of_state, potential)), heights)
                        gradient = where(within(minus(excess, centres), halves), of_firing, rest)
                        gradient = plus(gradient, where(positive(excess), rest, of_state))
                        of_state = times(decays, gradient)
                        total = plus(total, gradient)
                        current = load(near, (t * TOGETHER if moves else 0) + i)
                        deviation = minus(current, load(mean, place))
                        product = plus(product, times(gradient, deviation))
                        if moves:
                            stream(written, t * neurons + neuron, stored(gradient, written))
                        else:
                            of_all = plus(of_all, gradient)
                    if not moves:
                        store(written, neuron, stored(of_all, written))
                    store(of_membrane, neuron, of_state)
                    store(all_sums, at, total)
                    store(all_products, at, product)
        streamed()
