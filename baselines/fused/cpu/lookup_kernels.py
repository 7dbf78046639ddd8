"""Numba kernels for currents of spikes by table look-up, with and without the neurons they drive.

The *method of the four Russians* (Arlazarov et al., 1970) computes sums of weights over binary
inputs. Four inputs that are 0 or 1 have 16 *patterns*. For every group of four inputs, a table
holds the sum of their weights under each pattern. A sum over all inputs then takes one look-up and
one addition per group, independent of the number of spikes, and no multiplication.

All arrays are flat. Spikes are 32-bit words, see :mod:`packed_spikes`; a word holds the patterns of
TOGETHER groups. Tables are ``(B, K, G, PATTERNS, LANES)``: B blocks of LANES output channels, K
kernel taps, G groups of four input channels.

The pixels that a convolution connects are a sparse matrix in CSR format with one row per output
pixel. Row ``i`` is output pixel ``places[i]``; its entries are ``firsts[i]`` to ``firsts[i + 1]``
(CSR index pointer) of ``sources``, the input pixels (CSR column indices), and of ``taps``, the
kernel taps (CSR values).
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
# Groups per word. Their looked-up sums are added to each other before they are added to a total;
# their tables take 16 KiB in float32.
TOGETHER = LANES // GROUP
# Images whose totals are summed in one pass over the tables.
IMAGES = 4


@numba.njit(inline="always")
def tabulate_four(one: Any, two: Any, three: Any, four: Any, table: Any, start: Any) -> None:
    """Write the table of one group: the sums of its four vectors under each of the 16 patterns.

    Bit ``i`` of a pattern says whether vector ``i`` is added.

    Args:
        one: LANES weights of input 0.
        two: LANES weights of input 1.
        three: LANES weights of input 2.
        four: LANES weights of input 3.
        table: flat array of tables, written.
        start: index in ``table`` at which the ``(PATTERNS, LANES)`` sums begin.
    """
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
    """Write the look-up tables of weights.

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
    """Return a total plus the looked-up sums of the TOGETHER groups of a word.

    Args:
        word: 32 spikes, 4 bits per group, the first group in the lowest bits.
        tables: flat array of tables.
        table: index in ``tables`` at which the table of the word's first group begins.
        total: LANES sums to add to.
    """
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
    """Compute the currents of a pixel, bias included, for LANES channels of a few images.

    The loop over words is outside the loop over steps and images, so that all totals use a table
    while it is in the cache.

    Args:
        words: packed spikes ``(T, N, W, P)``, flat uint32 words; see :mod:`packed_spikes`.
        row: index of the first word of the first image at the first time step.
        steps: number of time steps.
        step_stride: distance between the words of consecutive time steps.
        images: number of images.
        image_stride: distance between the words of consecutive images.
        pixels: P, number of input pixels.
        of_pixel: W, number of words per input pixel.
        tables: ``(B, K, G, PATTERNS, LANES)``, flat.
        sources: CSR column indices: input pixel of each connection.
        taps: CSR values: kernel tap of each connection.
        first: index of the pixel's first connection.
        last: index after the pixel's last connection.
        kernel: K, number of kernel taps.
        bias: ``(B * LANES,)``.
        channel: first of the LANES output channels.
        totals: ``(steps * images * LANES,)`` with the steps outermost, written.
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
    """Round totals to bfloat16 in place.

    Args:
        totals: flat array, ``(count * LANES,)`` or longer.
        count: number of vectors of LANES totals to round.
    """
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
    """Write the spikes of LANES neurons, and return their potentials after the last reset.

    Args:
        totals: currents ``(steps * images * LANES,)``, see :func:`_sum`.
        image: index of the image among ``images``.
        images: number of images in ``totals``.
        steps: number of time steps.
        scales: LANES factors of the currents.
        shifts: LANES offsets of the scaled currents.
        decays: decay of the potential, in every lane.
        thresholds: threshold that the potential must exceed to spike, in every lane.
        rest: zeros, the potential after a reset.
        state: LANES potentials to start from.
        fired: packed spikes, flat uint32 words, written.
        word: index in ``fired`` of the neurons' word at the first time step.
        step_stride: distance between the words of consecutive time steps in ``fired``.
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
    """Compute the currents of all output pixels, and the sums for their mean and variance.

    The moments are sums of deviations from an origin, one per piece of work and channel, because
    sums of plain squares would lose digits.

    Args:
        words: packed spikes ``(T, N, W, P)``, flat uint32 words; see :mod:`packed_spikes`.
        pixels: P, number of input pixels.
        step_stride: distance between the words of consecutive time steps.
        image_stride: distance between the words of consecutive images.
        tables: ``(B, K, G, PATTERNS, LANES)``, flat.
        places: ``(Q,)``, the output pixel of each CSR row.
        firsts: ``(Q + 1,)``, CSR index pointer.
        sources: CSR column indices: input pixel of each connection.
        taps: CSR values: kernel tap of each connection.
        bias: ``(B * LANES,)``.
        of_pixel: W, number of words per input pixel; G is ``TOGETHER * W``.
        kernel: K, number of kernel taps.
        time_steps: T.
        rounded: True to round the currents to bfloat16.
        currents: ``(T * N * Q * B * LANES,)`` for Q output pixels, written with streaming stores;
            must begin at a multiple of CACHE_LINE.
        origins: ``(PIECES * B * LANES,)``, written: the first current of each piece and channel.
        sums: ``(PIECES * B * LANES,)`` of zeros, to which the currents minus origin are added.
        squares: ``(PIECES * B * LANES,)`` of zeros, to which the squared differences are added.
        counts: ``(PIECES, B)`` of zeros, to which the number of currents per channel is added.
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
    """Compute the spikes of ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + scale * x_t + shift``.

    The currents x equal those that :func:`add_up` computes. They are not stored.

    Args:
        words: packed spikes ``(T, N, W, P)``, flat uint32 words; see :mod:`packed_spikes`.
        pixels: P, number of input pixels.
        step_stride: distance between the words of consecutive time steps.
        image_stride: distance between the words of consecutive images.
        tables: ``(B, K, G, PATTERNS, LANES)``, flat.
        places: ``(Q,)``, the output pixel of each CSR row.
        firsts: ``(Q + 1,)``, CSR index pointer.
        sources: CSR column indices: input pixel of each connection.
        taps: CSR values: kernel tap of each connection.
        bias: ``(B * LANES,)``.
        of_pixel: W, number of words per input pixel; G is ``TOGETHER * W``.
        kernel: K, number of kernel taps.
        time_steps: T.
        rounded: True to round the currents to bfloat16.
        scale: ``(B * LANES,)``, factors of the currents.
        shift: ``(B * LANES,)``, offsets of the scaled currents.
        decay: decay of the potential.
        threshold: threshold that the potential must exceed to spike.
        rests: True to start at rest and ignore ``started``.
        started: ``(N * Q * B * LANES,)``, potentials to start from.
        ended: ``(N * Q * B * LANES,)``, written: potentials after the last step's reset.
        fired: packed spikes ``(T, N, B, Q)``, flat uint32 words, written.
        fired_step_stride: distance between the words of consecutive time steps in ``fired``.
        fired_image_stride: distance between the words of consecutive images in ``fired``.
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
