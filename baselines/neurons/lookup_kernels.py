"""Sums of weights over spikes by table look-up, and the neurons that they drive, compiled by Numba.

Four inputs that are 0 or 1 have 16 *patterns*. A table holds, for every four inputs, the sum of
their weights under each pattern; summing over all inputs then takes one addition for every four,
however many of them fire (Arlazarov et al., 1970: the method of the four Russians).

Arrays are flat. Patterns are ``(R, P, G)``: R images (at each time step), P input pixels, G groups
of four channels. Tables are ``(B, K, G, 16, LANES)``: B blocks of output channels, K taps of the
kernel. The connections of output pixel ``places[i]`` are the entries from ``firsts[i]`` to
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
IMAGES = 4


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


@Kernel
def pack(spikes: Any, patterns: Any) -> None:
    """Patterns of spikes.

    Args:
        spikes: ``(L,)`` uint32, each four bytes that are 0 or 1, the first the lowest.
        patterns: ``(L,)`` uint8, written.
    """
    length = len(spikes)
    for piece in numba.prange(PIECES):
        for i in range(piece * length // PIECES, (piece + 1) * length // PIECES):
            four = spikes[i]
            patterns[i] = (four | four >> 7 | four >> 14 | four >> 21) & 15


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
    stride: Any,
    images: Any,
    image_stride: Any,
    tables: Any,
    table: Any,
    sources: Any,
    taps: Any,
    first: Any,
    last: Any,
    groups: Any,
    steps: Any,
    totals: Any,
) -> None:
    """Add to each of ``totals`` all connections of a pixel.

    A few groups at a time for all of the totals: what these need of the table is then at hand.

    Args:
        patterns: see the module.
        row: where those of the first total's image begin.
        stride: from there to the next total's.
        tables: see the module.
        table: where that of the first tap begins.
        sources: see the module.
        taps: see the module.
        first: of the pixel's connections.
        last: one behind its last.
        groups: G.
        totals: ``(T * LANES,)``.
    """
    for connection in range(first, last):
        source = row + _item(sources, connection) * groups
        tap = table + _item(taps, connection) * groups * PATTERNS * LANES
        for group in range(0, groups, TOGETHER):
            entries = tap + group * PATTERNS * LANES
            place = 0
            for step in range(steps):
                pattern = source + step * stride + group
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
    pixels: Any,
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
        pixels: P.
        groups: G, a multiple of TOGETHER.
        kernel: K.
        time_steps: T; the R images are N at each of them, the steps outermost.
        currents: ``(R * Q * B * LANES,)`` for Q output pixels, written.
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
                image * pixels * groups,
                images * pixels * groups,
                some,
                pixels * groups,
                tables,
                block * kernel * groups * PATTERNS * LANES,
                sources,
                taps,
                _item(firsts, i),
                _item(firsts, i + 1),
                groups,
                time_steps,
                totals,
            )
            place = (image * outputs + _item(places, i)) * channels + channel
            for t in range(time_steps):
                for k in range(some):
                    total_ = _load(totals, (t * some + k) * LANES)
                    _store(currents, t * neurons + place + k * outputs * channels, total_)


@Kernel
def fire(
    patterns: Any,
    tables: Any,
    places: Any,
    firsts: Any,
    sources: Any,
    taps: Any,
    bias: Any,
    pixels: Any,
    groups: Any,
    kernel: Any,
    time_steps: Any,
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
        pixels: as there.
        groups: as there.
        kernel: as there.
        time_steps: as there.
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
                image * pixels * groups,
                images * pixels * groups,
                some,
                pixels * groups,
                tables,
                block * kernel * groups * PATTERNS * LANES,
                sources,
                taps,
                _item(firsts, i),
                _item(firsts, i + 1),
                groups,
                time_steps,
                totals,
            )
            for k in range(some):
                place = ((image + k) * outputs + _item(places, i)) * channels + channel
                state = _load(membrane, place)
                for t in range(time_steps):
                    current = _load(totals, (t * some + k) * LANES)
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
