"""Numba kernels for linear layers of spikes by table look-up, with and without the neurons.

The method is explained in :mod:`lookup_kernels`. Each weight of a linear layer belongs to one pixel
only, so only the rows of a batch share a table. A table is therefore computed where it is used, and
never leaves the core's cache.
"""

from typing import Any

import numba
import numpy as np

from baselines.fused.cpu.lif_kernels import PIECES, Kernel
from baselines.fused.cpu.lookup_kernels import (
    GROUP,
    PATTERNS,
    TOGETHER,
    add_together,
    fire_lanes,
    round_all,
    tabulate_four,
)
from baselines.fused.cpu.simd import (
    LANES,
    bfloat16,
    item,
    load,
    minus,
    plus,
    spread,
    store,
    stream,
    streamed,
    times,
)

# Rows that use a table before the next one is computed; their totals take 32 KiB in float32.
ROWS = 256


@numba.njit(inline="always")
def _load(numbers: Any, at: Any, rounded: Any) -> Any:
    lanes = load(numbers, at)
    return bfloat16(lanes) if rounded else lanes


@numba.njit(inline="always")
def _sum(
    words: Any,
    first_word: Any,
    steps: Any,
    step_stride: Any,
    images: Any,
    image_stride: Any,
    weights: Any,
    weight: Any,
    stride: Any,
    inputs: Any,
    first: Any,
    rounded: Any,
    table: Any,
    totals: Any,
) -> None:
    """Compute the currents of LANES output channels, bias included.

    Args:
        words: packed spikes ``(T, N, W, 1)``, flat uint32 words; see :mod:`packed_spikes`.
        first_word: index of the first word of the first image at the first time step.
        steps: number of time steps.
        step_stride: distance between the words of consecutive time steps.
        images: number of images.
        image_stride: distance between the words of consecutive images.
        weights: flat array of weights.
        weight: index in ``weights`` of the first input's LANES weights.
        stride: distance between the weights of consecutive inputs.
        inputs: number of inputs, ``W * LANES``.
        first: LANES biases.
        rounded: True to round the weights to bfloat16.
        table: ``(TOGETHER * PATTERNS * LANES,)``, overwritten.
        totals: ``(steps * images * LANES,)`` with the steps outermost, written.
    """
    size = PATTERNS * LANES
    for k in range(steps * images):
        store(totals, k * LANES, first)
    for group in range(0, inputs // GROUP, TOGETHER):
        for k in range(TOGETHER):
            tabulate_four(
                _load(weights, weight, rounded),
                _load(weights, weight + stride, rounded),
                _load(weights, weight + 2 * stride, rounded),
                _load(weights, weight + 3 * stride, rounded),
                table,
                k * size,
            )
            weight += GROUP * stride
        place = 0
        for step in range(steps):
            word = first_word + step * step_stride + group // TOGETHER
            for _ in range(images):
                total = add_together(item(words, word), table, 0, load(totals, place))
                store(totals, place, total)
                word += image_stride
                place += LANES


@Kernel
def connect(words: Any, stride: Any, weights: Any, bias: Any, rounded: Any, currents: Any) -> None:
    """Compute the currents of a linear layer, bias included.

    Args:
        words: packed spikes of R rows, flat uint32 words; see :mod:`packed_spikes`.
        stride: distance between the words of consecutive rows.
        weights: ``(W * LANES, B * LANES)``.
        bias: ``(B * LANES,)``.
        rounded: True to round weights, bias and currents, but not the sums, to bfloat16.
        currents: ``(R * B * LANES,)``, written with streaming stores; must begin at a multiple of
            CACHE_LINE.
    """
    inputs, channels = weights.shape
    flat = weights.reshape(-1)
    rows, blocks = len(currents) // channels, channels // LANES
    parts = (rows + ROWS - 1) // ROWS
    work = blocks * parts
    for piece in numba.prange(PIECES):
        table = np.empty(TOGETHER * PATTERNS * LANES, weights.dtype)
        totals = np.empty(ROWS * LANES, weights.dtype)
        for at in range(piece * work // PIECES, (piece + 1) * work // PIECES):
            channel, begin = at // parts * LANES, at % parts * ROWS
            some = min(ROWS, rows - begin)
            _sum(
                words,
                begin * stride,
                1,
                0,
                some,
                stride,
                flat,
                channel,
                channels,
                inputs,
                _load(bias, channel, rounded),
                rounded,
                table,
                totals,
            )
            for k in range(some):
                current = load(totals, k * LANES)
                if rounded:
                    current = bfloat16(current)
                stream(currents, (begin + k) * channels + channel, current)
        streamed()


@numba.njit(inline="always")
def _statistics(totals: Any, rows: Any, mean: Any, variance: Any) -> None:
    """Write the mean and the biased variance of LANES channels.

    Args:
        totals: ``(rows * LANES,)`` or longer.
        rows: number of values per channel.
        mean: ``(LANES,)``, written.
        variance: ``(LANES,)``, written.
    """
    share, total = spread(totals.dtype.type(1 / rows)), load(totals, 0)
    total = minus(total, total)
    square = total
    for k in range(0, rows * LANES, LANES):
        total = plus(total, load(totals, k))
    total = times(total, share)
    for k in range(0, rows * LANES, LANES):
        deviation = minus(load(totals, k), total)
        square = plus(square, times(deviation, deviation))
    store(mean, 0, total)
    store(variance, 0, times(square, share))


@Kernel
def fire(
    words: Any,
    step_stride: Any,
    image_stride: Any,
    time_steps: Any,
    weights: Any,
    block_stride: Any,
    input_stride: Any,
    bias: Any,
    scale: Any,
    shift: Any,
    decay: Any,
    threshold: Any,
    epsilon: Any,
    of_batch: Any,
    rounded: Any,
    rests: Any,
    membrane: Any,
    fired: Any,
    fired_step_stride: Any,
    fired_image_stride: Any,
    means: Any,
    variances: Any,
) -> None:
    """Compute the spikes of ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + scale * x_t + shift``.

    The currents x equal those that :func:`connect` computes, normalised if ``of_batch``. They are
    not stored.

    Args:
        words: packed spikes ``(T, N, W, 1)``, flat uint32 words; see :mod:`packed_spikes`.
        step_stride: distance between the words of consecutive time steps.
        image_stride: distance between the words of consecutive images.
        time_steps: T.
        weights: ``(W * LANES * B * LANES,)``, in the order given by the two strides.
        block_stride: distance between the weights of consecutive blocks of LANES output channels.
        input_stride: distance between the weights of consecutive inputs.
        bias: ``(B * LANES,)``.
        scale: ``(B * LANES,)``, factors of the currents.
        shift: ``(B * LANES,)``, offsets of the scaled currents.
        decay: decay of the potential.
        threshold: threshold that the potential must exceed to spike.
        epsilon: number added to variances.
        of_batch: True to normalise the currents by the mean and variance of the batch, per channel:
            ``(x - mean) / sqrt(variance + epsilon)``.
        rounded: True to round weights, bias and currents, but not the sums, to bfloat16.
        rests: True to start at rest and ignore the values in ``membrane``.
        membrane: ``(N * B * LANES,)``, potentials to start from; overwritten with the potentials
            after the last step's reset.
        fired: packed spikes ``(T, N, B, 1)``, flat uint32 words, written.
        fired_step_stride: distance between the words of consecutive time steps in ``fired``.
        fired_image_stride: distance between the words of consecutive images in ``fired``.
        means: ``(B * LANES,)``, means of the currents, written if ``of_batch``.
        variances: ``(B * LANES,)``, biased variances of the currents, written if ``of_batch``.
    """
    channels = len(bias)
    inputs, blocks, images = len(weights) // channels, channels // LANES, len(membrane) // channels
    together = images if of_batch else max(1, ROWS // time_steps)
    parts = (images + together - 1) // together
    work = blocks * parts
    for piece in numba.prange(PIECES):
        decays, thresholds, rest = spread(decay), spread(threshold), spread(decay - decay)
        table = np.empty(TOGETHER * PATTERNS * LANES, weights.dtype)
        totals = np.empty(time_steps * together * LANES, weights.dtype)
        factors = np.empty(LANES, weights.dtype)
        for at in range(piece * work // PIECES, (piece + 1) * work // PIECES):
            block, image = at // parts, at % parts * together
            some, channel = min(together, images - image), block * LANES
            _sum(
                words,
                image * image_stride,
                time_steps,
                step_stride,
                some,
                image_stride,
                weights,
                block * block_stride,
                input_stride,
                inputs,
                _load(bias, channel, rounded),
                rounded,
                table,
                totals,
            )
            if rounded:
                round_all(totals, time_steps * some)
            scales, shifts = load(scale, channel), load(shift, channel)
            if of_batch:
                last = channel + LANES
                mean, variance = means[channel:last], variances[channel:last]
                _statistics(totals, time_steps * some, mean, variance)
                for i in range(LANES):
                    factors[i] = scale[channel + i] / np.sqrt(variance[i] + epsilon)
                scales = load(factors, 0)
                shifts = minus(shifts, times(load(mean, 0), scales))
            for k in range(some):
                place = (image + k) * channels + channel
                state = fire_lanes(
                    totals,
                    k,
                    some,
                    time_steps,
                    scales,
                    shifts,
                    decays,
                    thresholds,
                    rest,
                    rest if rests else load(membrane, place),
                    fired,
                    (image + k) * fired_image_stride + block,
                    fired_step_stride,
                )
                store(membrane, place, state)
