"""Sums of weights over spikes by table look-up, and the neurons that they drive, compiled by Numba.

Four inputs that are 0 or 1 have 16 *patterns*. A table holds, for every four inputs, the sum of
their weights under each pattern; summing over all inputs then takes one addition for every four,
however many of them fire (Arlazarov et al., 1970: the method of the four Russians).

Arrays are flat. Spikes are words of 32 bits, see :mod:`bits`: TOGETHER patterns each. Tables are
``(B, K, G, 16, LANES)``: B blocks of output channels, K taps of the kernel, G groups of four input
channels. The connections of output pixel ``places[i]`` are the entries from ``firsts[i]`` to
``firsts[i + 1]`` of ``sources``, an input pixel each, and of ``taps``.
"""

from typing import Any

import numba
import numpy as np

from baselines.fused.cpu.lif_kernels import PIECES, Kernel
from baselines.fused.cpu.simd import (
    LANES,
    bfloat16,
    bits,
    item,
    load,
    minus,
    plus,
    positive,
    spread,
    store,
    stream,
    streamed,
    times,
    where,
)

GROUP = 4
PATTERNS = 2**GROUP
# Groups of a word, that are added to each other before they are added to a total: their tables take
# 16 KiB in float32.
TOGETHER = LANES // GROUP
# Images whose totals are summed side by side, of which each takes as much of a table as it needs.
IMAGES = 4


@numba.njit(inline="always")
def tabulate_four(one: Any, two: Any, three: Any, four: Any, table: Any, start: Any) -> None:
    """The table of four, from ``start``: their sums under each pattern."""
    store(table, start, minus(one, one))
    store(table, start + LANES, one)
    store(table, start + 2 * LANES, two)
    store(table, start + 3 * LANES, plus(one, two))
    for bit, added in ((4, three), (8, four)):
        for pattern in range(bit):
            total = plus(load(table, start + pattern * LANES), added)
            store(table, start + (pattern + bit) * LANES, total)


@Kernel
def tabulate(weights: Any, tables: Any) -> None:
    """Tables of weights.

    Args:
        weights: ``(K * G, GROUP, B, LANES)``.
        tables: ``(B, K * G, PATTERNS, LANES)``, written.
    """
    blocks, groups = tables.shape[:2]
    numbers, written, stride = weights.reshape(-1), tables.reshape(-1), blocks * LANES
    for piece in numba.prange(PIECES):
        for at in range(piece * blocks * groups // PIECES, (piece + 1) * blocks * groups // PIECES):
            first = (at % groups * GROUP * blocks + at // groups) * LANES
            tabulate_four(
                load(numbers, first),
                load(numbers, first + stride),
                load(numbers, first + 2 * stride),
                load(numbers, first + 3 * stride),
                written,
                at * PATTERNS * LANES,
            )


@numba.njit(inline="always")
def add_together(word: Any, tables: Any, table: Any, total: Any) -> Any:
    """A total, and what the tables of TOGETHER groups, from ``table``, say of a word."""
    added = load(tables, table + (word & (PATTERNS - 1)) * LANES)
    for _ in range(1, TOGETHER):
        table += PATTERNS * LANES
        word >>= GROUP
        added = plus(added, load(tables, table + (word & (PATTERNS - 1)) * LANES))
    return plus(total, added)


@numba.njit(inline="always")
def _sum(
    words: Any,
    row: Any,
    steps: Any,
    step_stride: Any,
    images: Any,
    image_stride: Any,
    pixels: Any,
    of_pixel: Any,
    tables: Any,
    sources: Any,
    taps: Any,
    first: Any,
    last: Any,
    kernel: Any,
    bias: Any,
    channel: Any,
    totals: Any,
) -> None:
    """The currents of a pixel: bias and all connections, for LANES channels of a few images.

    A word at a time for all of the totals: what these need of the table is then at hand.

    Args:
        words: see :mod:`bits`.
        row: where those of the first image's first step begin.
        steps: of each image.
        step_stride: of the words.
        images: whose totals are summed.
        image_stride: of the words.
        pixels: P.
        of_pixel: W.
        tables: see the module.
        sources: see the module.
        taps: see the module.
        first: of the pixel's connections.
        last: one behind its last.
        kernel: K.
        bias: ``(B * LANES,)``.
        channel: the first of the channels.
        totals: ``(steps * images * LANES,)``, the steps outermost, written.
    """
    for k in range(steps * images):
        store(totals, k * LANES, load(bias, channel))
    of_word = TOGETHER * PATTERNS * LANES
    of_block = kernel * of_pixel * of_word
    for connection in range(first, last):
        source = row + item(sources, connection)
        table = channel // LANES * of_block + item(taps, connection) * of_pixel * of_word
        for word in range(of_pixel):
            place = 0
            for step in range(steps):
                at = source + step * step_stride + word * pixels
                for _ in range(images):
                    total = add_together(item(words, at), tables, table, load(totals, place))
                    store(totals, place, total)
                    at += image_stride
                    place += LANES
            table += of_word


@numba.njit(inline="always")
def round_all(totals: Any, count: Any) -> None:
    """Round as many LANES of totals to bfloat16."""
    for k in range(0, count * LANES, LANES):
        store(totals, k, bfloat16(load(totals, k)))


@numba.njit(inline="always")
def fire_lanes(
    totals: Any,
    image: Any,
    images: Any,
    steps: Any,
    scales: Any,
    shifts: Any,
    decays: Any,
    thresholds: Any,
    rest: Any,
    state: Any,
    fired: Any,
    word: Any,
    step_stride: Any,
) -> Any:
    """Write the spikes of LANES neurons, and return their potential after the last step's reset.

    Args:
        totals: their currents, see :func:`_sum`.
        image: whose neurons they are.
        images: of which there are totals.
        steps: of each image.
        scales: multiply the currents.
        shifts: are then added.
        decays: of the potential.
        thresholds: which it must exceed.
        rest: zeros.
        state: the potential that they go on from.
        fired: words, see :mod:`bits`.
        word: that of the first step.
        step_stride: of the words.
    """
    for t in range(steps):
        current = load(totals, (t * images + image) * LANES)
        potential = plus(times(decays, state), plus(times(scales, current), shifts))
        fires = positive(minus(potential, thresholds))
        fired[word + t * step_stride] = bits(fires)
        state = where(fires, rest, potential)
    return state


@Kernel
def add_up(
    words: Any,
    pixels: Any,
    step_stride: Any,
    image_stride: Any,
    tables: Any,
    places: Any,
    firsts: Any,
    sources: Any,
    taps: Any,
    bias: Any,
    of_pixel: Any,
    kernel: Any,
    time_steps: Any,
    rounded: Any,
    currents: Any,
    origins: Any,
    sums: Any,
    squares: Any,
    counts: Any,
) -> None:
    """Currents of all output pixels: bias, and the weights of the spikes. And their moments.

    Args:
        words: see :mod:`bits`.
        pixels: P.
        step_stride: of the words.
        image_stride: of the words.
        tables: see the module.
        places: see the module.
        firsts: see the module.
        sources: see the module.
        taps: see the module.
        bias: ``(B * LANES,)``.
        of_pixel: W; G is TOGETHER times that.
        kernel: K.
        time_steps: T.
        rounded: whether currents are rounded to bfloat16.
        currents: ``(T * N * Q * B * LANES,)`` for Q output pixels, written past the caches; they
            must begin at a multiple of CACHE_LINE.
        origins: ``(PIECES * B * LANES,)``, written: of each piece and channel the first current.
        sums: alike, of zeros: those of the currents less their origin.
        squares: alike, of the squares of the same.
        counts: ``(PIECES, B)`` of zeros: how many currents of each channel were summed.
    """
    outputs, channels = len(places), len(bias)
    neurons = len(currents) // time_steps
    images, blocks = neurons // (outputs * channels), channels // LANES
    tiles = (images + IMAGES - 1) // IMAGES
    work = blocks * tiles * outputs
    for piece in numba.prange(PIECES):
        totals = np.empty(time_steps * IMAGES * LANES, currents.dtype)
        for at in range(piece * work // PIECES, (piece + 1) * work // PIECES):
            block, image, i = at // (tiles * outputs), at // outputs % tiles * IMAGES, at % outputs
            some = min(IMAGES, images - image)
            channel = block * LANES
            _sum(
                words,
                image * image_stride,
                time_steps,
                step_stride,
                some,
                image_stride,
                pixels,
                of_pixel,
                tables,
                sources,
                taps,
                item(firsts, i),
                item(firsts, i + 1),
                kernel,
                bias,
                channel,
                totals,
            )
            place = (image * outputs + item(places, i)) * channels + channel
            moment = piece * channels + channel
            if counts[piece, block] == 0:
                store(origins, moment, load(totals, 0))
            counts[piece, block] += time_steps * some
            origin = load(origins, moment)
            total, square = load(sums, moment), load(squares, moment)
            for t in range(time_steps):
                for k in range(some):
                    current = load(totals, (t * some + k) * LANES)
                    if rounded:
                        current = bfloat16(current)
                    stream(currents, t * neurons + place + k * outputs * channels, current)
                    deviation = minus(current, origin)
                    total = plus(total, deviation)
                    square = plus(square, times(deviation, deviation))
            store(sums, moment, total)
            store(squares, moment, square)
        streamed()


@Kernel
def fire(
    words: Any,
    pixels: Any,
    step_stride: Any,
    image_stride: Any,
    tables: Any,
    places: Any,
    firsts: Any,
    sources: Any,
    taps: Any,
    bias: Any,
    of_pixel: Any,
    kernel: Any,
    time_steps: Any,
    rounded: Any,
    scale: Any,
    shift: Any,
    decay: Any,
    threshold: Any,
    rests: Any,
    started: Any,
    ended: Any,
    fired: Any,
    fired_step_stride: Any,
    fired_image_stride: Any,
) -> None:
    """Spikes of ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + scale * x_t + shift``.

    x are the currents of :func:`add_up`, which are not kept.

    Args:
        words: as there.
        pixels: as there.
        step_stride: as there.
        image_stride: as there.
        tables: as there.
        places: as there.
        firsts: as there.
        sources: as there.
        taps: as there.
        bias: as there.
        of_pixel: as there.
        kernel: as there.
        time_steps: as there.
        rounded: as there.
        scale: ``(B * LANES,)``.
        shift: alike.
        decay: of the potential.
        threshold: which it must exceed.
        rests: whether the neurons start at rest, whatever ``started`` says.
        started: ``(N * Q * B * LANES,)``, the potential that they go on from.
        ended: alike, written: that after the last step's reset.
        fired: words ``(T, N, B, Q)`` of the spikes, written, see :mod:`bits`.
        fired_step_stride: of those words.
        fired_image_stride: of those words.
    """
    outputs, channels, neurons = len(places), len(bias), len(ended)
    images, blocks = neurons // (outputs * channels), channels // LANES
    tiles = (images + IMAGES - 1) // IMAGES
    total = blocks * tiles * outputs
    for piece in numba.prange(PIECES):
        decays, thresholds, rest = spread(decay), spread(threshold), spread(decay - decay)
        totals = np.empty(time_steps * IMAGES * LANES, ended.dtype)
        for at in range(piece * total // PIECES, (piece + 1) * total // PIECES):
            block, image, i = at // (tiles * outputs), at // outputs % tiles * IMAGES, at % outputs
            some = min(IMAGES, images - image)
            channel = block * LANES
            _sum(
                words,
                image * image_stride,
                time_steps,
                step_stride,
                some,
                image_stride,
                pixels,
                of_pixel,
                tables,
                sources,
                taps,
                item(firsts, i),
                item(firsts, i + 1),
                kernel,
                bias,
                channel,
                totals,
            )
            if rounded:
                round_all(totals, time_steps * some)
            pixel = item(places, i)
            scales, shifts = load(scale, channel), load(shift, channel)
            for k in range(some):
                place = ((image + k) * outputs + pixel) * channels + channel
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
                    rest if rests else load(started, place),
                    fired,
                    (image + k) * fired_image_stride + block * outputs + pixel,
                    fired_step_stride,
                )
                store(ended, place, state)
