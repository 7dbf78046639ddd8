"""Sums of weights over spikes by table look-up, and the neurons that they drive, compiled by Numba.

Four inputs that are 0 or 1 have 16 *patterns*. A table holds, for every four inputs, the sum of
their weights under each pattern; summing over all inputs then takes one addition for every four,
however many of them fire (Arlazarov et al., 1970: the method of the four Russians).

Arrays are flat. Patterns are ``(T, N, P, G)``: T time steps, N images, P input pixels, G groups of
four channels. Steps and images begin at multiples of strides that keep them off the same few places
in the processor's cache. Tables are ``(B, K, G, 16, LANES)``: B blocks of output channels, K taps
of the kernel. The connections of output pixel ``places[i]`` are the entries from ``firsts[i]`` to
``firsts[i + 1]`` of ``sources``, an input pixel each, and of ``taps``.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import extending

from baselines.neurons.compiled import PIECES, Kernel

# What it is called with is not what it is declared with, so types cannot be checked.
intrinsic: Any = extending.intrinsic

LANES = 32
GROUP = 4
PATTERNS = 2**GROUP
# Groups that are added to each other before they are added to a total: their tables take 16 KiB in
# float32.
TOGETHER = 8
# Images whose totals are summed side by side, of which each takes as much of a table as it needs.
IMAGES = 4
# Tables of gradients that are used side by side: 16 KiB in float32.
TABLES = 8


class Lanes(types.Type):
    """A vector of LANES numbers; the compiler cuts it to what the processor has."""

    def __init__(self, number: types.Type) -> None:
        self.number = number
        super().__init__(f"Lanes({number})")


@extending.register_model(Lanes)
class _LanesModel(extending.models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        number = manager.lookup(lanes.number).get_value_type()
        super().__init__(manager, lanes, ir.VectorType(number, LANES))


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [at])


@intrinsic
def _item(context: Any, array: Any, at: Any) -> Any:
    """``array[at]``, of which at must not be negative."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(target, builder, signature.args[0], *arguments))

    return array.dtype(array, types.int64), generate


@intrinsic
def _load(context: Any, array: Any, at: Any) -> Any:
    """``array[at : at + LANES]``."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        place = _pointer(target, builder, kind, *arguments)
        lanes = target.get_value_type(signature.return_type).as_pointer()
        return builder.load(builder.bitcast(place, lanes), align=kind.dtype.bitwidth // 8)

    return Lanes(array.dtype)(array, types.int64), generate


@intrinsic
def _store(context: Any, array: Any, at: Any, lanes: Any) -> Any:
    """``array[at : at + LANES] = lanes``."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        place = _pointer(target, builder, kind, *arguments[:2])
        value = arguments[2]
        place = builder.bitcast(place, value.type.as_pointer())
        builder.store(value, place, align=kind.dtype.bitwidth // 8)
        return target.get_dummy_value()

    return types.void(array, types.int64, lanes), generate


def _operation(name: str) -> Any:
    """An operation of two :class:`Lanes`, by its name in LLVM."""

    @intrinsic
    def operation(context: Any, one: Any, other: Any) -> Any:
        def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(*arguments)

        return one(one, other), generate

    return operation


_plus, _minus, _times = (_operation(name) for name in ("fadd", "fsub", "fmul"))


@intrinsic
def _spread(context: Any, number: Any) -> Any:
    """A number in every lane."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = target.get_value_type(signature.return_type)
        anything = ir.Constant(lanes, ir.Undefined)
        first = builder.insert_element(anything, arguments[0], ir.Constant(ir.IntType(32), 0))
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(first, anything, everywhere)

    return Lanes(number)(number), generate


@intrinsic
def _positive(context: Any, lanes: Any) -> Any:
    """1 where a lane is above 0, else 0, in bytes."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        above = builder.fcmp_ordered(">", arguments[0], ir.Constant(arguments[0].type, None))
        return builder.zext(above, target.get_value_type(signature.return_type))

    return Lanes(types.uint8)(lanes), generate


@intrinsic
def _zero_where(context: Any, ones: Any, lanes: Any) -> Any:
    """The lanes, 0 where the bytes ``ones`` are not 0."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        chosen, value = arguments
        chosen = builder.icmp_unsigned("!=", chosen, ir.Constant(chosen.type, None))
        return builder.select(chosen, ir.Constant(value.type, None), value)

    return lanes(ones, lanes), generate


def _bfloat16(lanes):  # type: ignore[no-untyped-def]
    raise NotImplementedError("only within compiled code")


@intrinsic
def _rounded(context: Any, lanes: Any) -> Any:
    """Float32 lanes, to the nearest bfloat16, ties to even."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integers = ir.VectorType(ir.IntType(32), LANES)
        half, sixteen, one, upper = (
            ir.Constant(integers, [number] * LANES) for number in (0x7FFF, 16, 1, 0xFFFF0000)
        )
        bits = builder.bitcast(arguments[0], integers)
        odd = builder.and_(builder.lshr(bits, sixteen), one)
        bits = builder.and_(builder.add(bits, builder.add(half, odd)), upper)
        return builder.bitcast(bits, arguments[0].type)

    return lanes(lanes), generate


@extending.overload(_bfloat16, inline="always")
def _bfloat16_overload(lanes):  # type: ignore[no-untyped-def]
    if lanes.number == types.float32:
        return lambda lanes: _rounded(lanes)
    return lambda lanes: lanes


@Kernel
def pack(spikes: Any, patterns: Any, step_stride: Any, image_stride: Any) -> None:
    """Patterns of spikes.

    Args:
        spikes: ``(T, N, P * G)`` uint32, each four bytes that are 0 or 1, the first the lowest.
        patterns: uint8, written, see the module.
        step_stride: of the patterns.
        image_stride: alike.
    """
    steps, images, length = spikes.shape
    for row in numba.prange(steps * images):
        step, image = row // images, row % images
        start = step * step_stride + image * image_stride
        written, four = patterns[start : start + length], spikes[step, image]
        for i in range(length):
            written[i] = (four[i] | four[i] >> 7 | four[i] >> 14 | four[i] >> 21) & 15


@Kernel
def tabulate(weights: Any, tables: Any) -> None:
    """Tables of weights.

    Args:
        weights: ``(K * G, GROUP, B, LANES)``.
        tables: ``(B, K * G, PATTERNS, LANES)``, written.
    """
    blocks, groups = tables.shape[:2]
    for piece in numba.prange(PIECES):
        for at in range(piece * blocks * groups // PIECES, (piece + 1) * blocks * groups // PIECES):
            block, group = at // groups, at % groups
            table = tables[block, group]
            table[0] = 0
            for bit in range(GROUP):
                added = weights[group, bit, block]
                for pattern in range(1 << bit):
                    for i in range(LANES):
                        table[pattern + (1 << bit), i] = table[pattern, i] + added[i]


@numba.njit(inline="always")
def _add(patterns: Any, row: Any, tables: Any, table: Any, total: Any) -> Any:
    """A total, and what the table says of TOGETHER patterns from ``row``."""
    added = _load(tables, table + _item(patterns, row) * LANES)
    for group in range(1, TOGETHER):
        table += PATTERNS * LANES
        added = _plus(added, _load(tables, table + _item(patterns, row + group) * LANES))
    return _plus(total, added)


@numba.njit(inline="always")
def _sum(
    patterns: Any,
    row: Any,
    steps: Any,
    step_stride: Any,
    images: Any,
    image_stride: Any,
    tables: Any,
    table: Any,
    sources: Any,
    taps: Any,
    first: Any,
    last: Any,
    groups: Any,
    totals: Any,
) -> None:
    """Add to each of ``totals`` all connections of a pixel.

    A few groups at a time for all of the totals: what these need of the table is then at hand.

    Args:
        patterns: see the module.
        row: where those of the first image's first step begin.
        steps: of each image.
        step_stride: of the patterns.
        images: whose totals are summed.
        image_stride: of the patterns.
        tables: see the module.
        table: where that of the first tap begins.
        sources: see the module.
        taps: see the module.
        first: of the pixel's connections.
        last: one behind its last.
        groups: G.
        totals: ``(steps * images * LANES,)``, the steps outermost.
    """
    for connection in range(first, last):
        source = row + _item(sources, connection) * groups
        tap = table + _item(taps, connection) * groups * PATTERNS * LANES
        for group in range(0, groups, TOGETHER):
            entries = tap + group * PATTERNS * LANES
            place = 0
            for step in range(steps):
                pattern = source + step * step_stride + group
                for _ in range(images):
                    total = _add(patterns, pattern, tables, entries, _load(totals, place))
                    _store(totals, place, total)
                    pattern += image_stride
                    place += LANES


@Kernel
def add_up(
    patterns: Any,
    tables: Any,
    places: Any,
    firsts: Any,
    sources: Any,
    taps: Any,
    bias: Any,
    step_stride: Any,
    image_stride: Any,
    groups: Any,
    kernel: Any,
    time_steps: Any,
    currents: Any,
) -> None:
    """Currents of all output pixels: bias, and the weights of the spikes.

    Args:
        patterns: see the module.
        tables: see the module.
        places: see the module.
        firsts: see the module.
        sources: see the module.
        taps: see the module.
        bias: ``(B * LANES,)``.
        step_stride: of the patterns.
        image_stride: alike.
        groups: G, a multiple of TOGETHER.
        kernel: K.
        time_steps: T.
        currents: ``(T * N * Q * B * LANES,)`` for Q output pixels, written.
    """
    outputs, channels = len(places), len(bias)
    neurons = len(currents) // time_steps
    images, blocks = neurons // (outputs * channels), channels // LANES
    tiles = (images + IMAGES - 1) // IMAGES
    total = blocks * tiles * outputs
    for piece in numba.prange(PIECES):
        totals = np.empty(time_steps * IMAGES * LANES, currents.dtype)
        for at in range(piece * total // PIECES, (piece + 1) * total // PIECES):
            block, image, i = at // (tiles * outputs), at // outputs % tiles * IMAGES, at % outputs
            some = min(IMAGES, images - image)
            channel = block * LANES
            for k in range(time_steps * some):
                _store(totals, k * LANES, _load(bias, channel))
            _sum(
                patterns,
                image * image_stride,
                time_steps,
                step_stride,
                some,
                image_stride,
                tables,
                block * kernel * groups * PATTERNS * LANES,
                sources,
                taps,
                _item(firsts, i),
                _item(firsts, i + 1),
                groups,
                totals,
            )
            place = (image * outputs + _item(places, i)) * channels + channel
            for t in range(time_steps):
                for k in range(some):
                    current = _load(totals, (t * some + k) * LANES)
                    _store(currents, t * neurons + place + k * outputs * channels, current)


@Kernel
def fire(
    patterns: Any,
    tables: Any,
    places: Any,
    firsts: Any,
    sources: Any,
    taps: Any,
    bias: Any,
    step_stride: Any,
    image_stride: Any,
    groups: Any,
    kernel: Any,
    time_steps: Any,
    rounded: Any,
    scale: Any,
    shift: Any,
    decay: Any,
    threshold: Any,
    membrane: Any,
    spikes: Any,
) -> None:
    """Spikes of ``u_t = decay * u_{t-1} * (1 - o_{t-1}) + scale * x_t + shift``.

    x are the currents of :func:`add_up`, which are not kept.

    Args:
        patterns: as there.
        tables: as there.
        places: as there.
        firsts: as there.
        sources: as there.
        taps: as there.
        bias: as there.
        step_stride: as there.
        image_stride: as there.
        groups: as there.
        kernel: as there.
        time_steps: as there.
        rounded: whether currents are rounded to bfloat16.
        scale: ``(B * LANES,)``.
        shift: alike.
        decay: of the potential.
        threshold: which it must exceed.
        membrane: ``(N * Q * B * LANES,)``, the potential after the reset; goes on to that of the
            last step.
        spikes: ``(T * N * Q * B * LANES,)`` uint8, written.
    """
    outputs, channels, neurons = len(places), len(bias), len(membrane)
    images, blocks = neurons // (outputs * channels), channels // LANES
    tiles = (images + IMAGES - 1) // IMAGES
    total = blocks * tiles * outputs
    for piece in numba.prange(PIECES):
        decays, thresholds = _spread(decay), _spread(threshold)
        totals = np.empty(time_steps * IMAGES * LANES, membrane.dtype)
        for at in range(piece * total // PIECES, (piece + 1) * total // PIECES):
            block, image, i = at // (tiles * outputs), at // outputs % tiles * IMAGES, at % outputs
            some = min(IMAGES, images - image)
            channel = block * LANES
            for k in range(time_steps * some):
                _store(totals, k * LANES, _load(bias, channel))
            _sum(
                patterns,
                image * image_stride,
                time_steps,
                step_stride,
                some,
                image_stride,
                tables,
                block * kernel * groups * PATTERNS * LANES,
                sources,
                taps,
                _item(firsts, i),
                _item(firsts, i + 1),
                groups,
                totals,
            )
            for k in range(some):
                place = ((image + k) * outputs + _item(places, i)) * channels + channel
                state = _load(membrane, place)
                for t in range(time_steps):
                    current = _load(totals, (t * some + k) * LANES)
                    if rounded:
                        current = _bfloat16(current)
                    current = _plus(_times(_load(scale, channel), current), _load(shift, channel))
                    potential = _plus(_times(decays, state), current)
                    fires = _positive(_minus(potential, thresholds))
                    _store(spikes, t * neurons + place, fires)
                    state = _zero_where(fires, potential)
                _store(membrane, place, state)


@Kernel
def add_firing(firsts: Any, firing: Any, weights: Any, bias: Any, currents: Any) -> None:
    """Currents of a linear layer: bias, and the weights of the inputs that fire, one by one.

    Args:
        firsts: those of row i begin at ``firsts[i]`` in ``firing`` and end at ``firsts[i + 1]``.
        firing: inputs, ascending.
        weights: ``(C * B * LANES,)``.
        bias: ``(B * LANES,)``.
        currents: ``(R * B * LANES,)``, written.
    """
    channels = len(bias)
    rows, blocks = len(firsts) - 1, channels // LANES
    total = blocks * rows
    for piece in numba.prange(PIECES):
        for at in range(piece * total // PIECES, (piece + 1) * total // PIECES):
            channel, row = at // rows * LANES, at % rows
            current = _load(bias, channel)
            for i in range(_item(firsts, row), _item(firsts, row + 1)):
                current = _plus(current, _load(weights, _item(firing, i) * channels + channel))
            _store(currents, row * channels + channel, current)


@numba.njit(inline="always")
def _tabulate_images(gradients: Any, first: Any, stride: Any, table: Any, start: Any) -> None:
    """A table of sums over the gradients of four images, the first at ``first``."""
    one, two = _load(gradients, first), _load(gradients, first + stride)
    three, four = _load(gradients, first + 2 * stride), _load(gradients, first + 3 * stride)
    _store(table, start, _minus(one, one))
    _store(table, start + LANES, one)
    _store(table, start + 2 * LANES, two)
    _store(table, start + 3 * LANES, _plus(one, two))
    for bit, added in ((4, three), (8, four)):
        for pattern in range(bit):
            total = _plus(_load(table, start + pattern * LANES), added)
            _store(table, start + (pattern + bit) * LANES, total)


@numba.njit(inline="always")
def _add_images(
    patterns: Any, row: Any, stride: Any, count: Any, table: Any, start: Any, total: Any
) -> Any:
    """A total, and what ``count`` tables say of a channel's patterns."""
    for i in range(count):
        pattern = _item(patterns, row + i * stride)
        total = _plus(total, _load(table, start + (i * PATTERNS + pattern) * LANES))
    return total


@Kernel
def add_gradients(
    patterns: Any,
    stride: Any,
    places: Any,
    firsts: Any,
    sources: Any,
    taps: Any,
    gradients: Any,
    channels: Any,
    kernel: Any,
    sums: Any,
) -> None:
    """Gradients of weights: sums of the currents' gradients over the spikes that took part.

    Here the patterns are of four images, and the tables of their gradients.

    Args:
        patterns: ``(F, P, C)`` uint8, each of a channel in four images.
        stride: from the patterns of four images to the next.
        places: see the module.
        firsts: see the module.
        sources: see the module.
        taps: see the module.
        gradients: of the currents, ``(4 * F * Q * B * LANES,)``.
        channels: C.
        kernel: K.
        sums: ``(S, B, K * C * LANES)`` of zeros, for S parts of the images; written.
    """
    splits, blocks = sums.shape[:2]
    outputs = len(places)
    image = outputs * blocks * LANES
    fours = len(gradients) // (GROUP * image)
    flat, size = sums.reshape(-1), PATTERNS * LANES
    for piece in numba.prange(PIECES):
        table = np.empty(TABLES * size, sums.dtype)
        for at in range(piece * splits * blocks // PIECES, (piece + 1) * splits * blocks // PIECES):
            split, block = at // blocks, at % blocks
            end = (split + 1) * fours // splits
            for four in range(split * fours // splits, end, TABLES):
                some = min(TABLES, end - four)
                for i in range(outputs):
                    place = _item(places, i) * blocks * LANES + block * LANES
                    for k in range(some):
                        first = (four + k) * GROUP * image + place
                        _tabulate_images(gradients, first, image, table, k * size)
                    for connection in range(_item(firsts, i), _item(firsts, i + 1)):
                        row = four * stride + _item(sources, connection) * channels
                        into = (at * kernel + _item(taps, connection)) * channels * LANES
                        for channel in range(channels):
                            total = _load(flat, into)
                            if some == TABLES:
                                total = _add_images(
                                    patterns, row + channel, stride, TABLES, table, 0, total
                                )
                            else:
                                total = _add_images(
                                    patterns, row + channel, stride, some, table, 0, total
                                )
                            _store(flat, into, total)
                            into += LANES
