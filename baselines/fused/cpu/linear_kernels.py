"""Sums of a linear layer's weights over spikes by table look-up, compiled by Numba.

As in :mod:`lookup_kernels`, but each weight belongs to one pixel only, so that a table is used by
the rows alone: it is made where it is used, and never leaves the core's cache.
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

# That use a table before the next one is made; their totals take 32 KiB in float32.
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
    """The currents of LANES channels: bias, and the weights of the spikes.

    Args:
        words: see :mod:`bits`.
        first_word: where those of the first image's first step begin.
        steps: of each image.
        step_stride: of the words.
        images: whose totals are summed.
        image_stride: of the words.
        weights: flat.
        weight: where those of the first input begin.
        stride: from the weights of one input to those of the next.
        inputs: ``W * LANES``.
        first: bias of the channels, LANES.
        rounded: whether the weights are rounded to bfloat16.
        table: ``(TOGETHER * PATTERNS * LANES,)``, written.
        totals: ``(steps * images * LANES,)``, the steps outermost, written.
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
    """Currents of a linear layer: bias, and the weights of the spikes.

    Args:
        words: of R rows, see :mod:`bits`.
        stride: from the words of one row to those of the next.
        weights: ``(W * LANES, B * LANES)``.
        bias: ``(B * LANES,)``.
        rounded: whether weights, bias and currents are rounded to bfloat16; sums are not.
        currents: ``(R * B * LANES,)``, written past the caches: see :func:`lookup_kernels.add_up`.
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
    """Mean and biased variance of LANES channels, each ``(LANES,)``, written."""
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
    """Spikes of ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + scale * x_t + shift``.

    x are the currents of :func:`connect`, which are not kept. They may be normalised before.

    Args:
        words: of T steps and N images, see :mod:`bits`.
        step_stride: of the words.
        image_stride: of the words.
        time_steps: T.
        weights: flat.
        block_stride: from the weights of LANES channels to those of the next LANES.
        input_stride: from the weights of one input to those of the next.
        bias: as there.
        scale: ``(B * LANES,)``.
        shift: alike.
        decay: of the potential.
        threshold: which it must exceed.
        epsilon: added to variances.
        of_batch: whether x are ``(x - mean) / sqrt(variance + epsilon)`` of the currents, by
            channel.
        rounded: as there.
        rests: whether the neurons start at rest, whatever ``membrane`` says.
        membrane: ``(N * B * LANES,)``, the potential that they go on from, and then that after the
            last step's reset.
        fired: words ``(T, N, B, 1)`` of the spikes, written, see :mod:`bits`.
        fired_step_stride: of those words.
        fired_image_stride: of those words.
        means: ``(B * LANES,)``, written if ``of_batch``.
        variances: alike; biased.
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
