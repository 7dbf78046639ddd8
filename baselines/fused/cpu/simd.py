"""Vectors of numbers in Numba kernels: a Numba type, and intrinsics that operate on it.

Numba relies on LLVM to vectorise loops. These intrinsics make the vectors explicit where LLVM does
not find them; LLVM splits the vectors to the processor's register size. Within a kernel they are
called without the ``context`` argument.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import extending

# Intrinsics are called with other arguments than they are declared with, so mypy cannot check them.
intrinsic: Any = extending.intrinsic

# Numbers per vector, and spikes per word.
LANES = 32
# Bytes of a cache line.
CACHE_LINE = 64


class Lanes(types.Type):
    """Type of a vector of LANES numbers; the compiler splits it to the processor's register size.

    Args:
        number: type of a number.
    """

    def __init__(self, number: types.Type) -> None:
        self.number = number
        super().__init__(f"Lanes({number})")


@extending.register_model(Lanes)
class _LanesModel(extending.models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        number = manager.lookup(lanes.number).get_value_type()
        super().__init__(manager, lanes, ir.VectorType(number, LANES))


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    """Return a pointer to ``array[at]``."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [at])


def _everywhere(builder: Any, number: Any) -> Any:
    """Return a vector with a number in every lane."""
    anything = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
    first = builder.insert_element(anything, number, ir.Constant(ir.IntType(32), 0))
    first_place = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, anything, first_place)


@intrinsic
def item(context: Any, array: Any, at: Any) -> Any:
    """Return ``array[at]`` without support for negative indices.

    Args:
        context: typing context of Numba.
        array: flat array.
        at: index, at least 0.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(target, builder, signature.args[0], *arguments))

    return array.dtype(array, types.int64), generate


@intrinsic
def load(context: Any, array: Any, at: Any) -> Any:
    """Return ``array[at : at + LANES]``.

    Args:
        context: typing context of Numba.
        array: flat array.
        at: index of the first number.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        place = _pointer(target, builder, kind, *arguments)
        lanes = target.get_value_type(signature.return_type).as_pointer()
        return builder.load(builder.bitcast(place, lanes), align=kind.dtype.bitwidth // 8)

    return Lanes(array.dtype)(array, types.int64), generate


@intrinsic
def store(context: Any, array: Any, at: Any, lanes: Any) -> Any:
    """Write ``array[at : at + LANES] = lanes``.

    Args:
        context: typing context of Numba.
        array: flat array, written.
        at: index of the first number.
        lanes: LANES numbers.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        place = _pointer(target, builder, kind, *arguments[:2])
        value = arguments[2]
        place = builder.bitcast(place, value.type.as_pointer())
        builder.store(value, place, align=kind.dtype.bitwidth // 8)
        return target.get_dummy_value()

    return types.void(array, types.int64, lanes), generate


@intrinsic
def stream(context: Any, array: Any, at: Any, lanes: Any) -> Any:
    """Write ``array[at : at + LANES] = lanes`` past the caches (a streaming, non-temporal store).

    For results that are not read soon. Call :func:`streamed` after the last such store.

    Args:
        context: typing context of Numba.
        array: flat array, written.
        at: index of the first number; its address must be a multiple of CACHE_LINE.
        lanes: LANES numbers.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _pointer(target, builder, signature.args[0], *arguments[:2])
        value = arguments[2]
        stored = builder.store(
            value, builder.bitcast(place, value.type.as_pointer()), align=CACHE_LINE
        )
        once = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        stored.set_metadata("nontemporal", once)
        return target.get_dummy_value()

    return types.void(array, types.int64, lanes), generate


@intrinsic
def streamed(context: Any) -> Any:
    """Make all streaming stores visible to other threads."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return target.get_dummy_value()

    return types.void(), generate


def _operation(name: str) -> Any:
    """Create an intrinsic for an operation on two :class:`Lanes`, by its name in LLVM."""

    @intrinsic
    def operation(context: Any, one: Any, other: Any) -> Any:
        def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(*arguments)

        return one(one, other), generate

    return operation


plus, minus, times = (_operation(name) for name in ("fadd", "fsub", "fmul"))


@intrinsic
def add_product(context: Any, total: Any, one: Any, other: Any) -> Any:
    """Return ``total + one * other``, rounded once if the processor has fused multiply-add.

    Args:
        context: typing context of Numba.
        total: LANES numbers.
        one: LANES numbers.
        other: LANES numbers.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        product = builder.fmul(*arguments[1:], flags=("contract",))
        return builder.fadd(arguments[0], product, flags=("contract",))

    return total(total, one, other), generate


@intrinsic
def spread(context: Any, number: Any) -> Any:
    """Return a vector with a number in every lane."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _everywhere(builder, arguments[0])

    return Lanes(number)(number), generate


@intrinsic
def positive(context: Any, lanes: Any) -> Any:
    """Return a mask of the lanes above 0."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fcmp_ordered(">", arguments[0], ir.Constant(arguments[0].type, None))

    return Lanes(types.boolean)(lanes), generate


@intrinsic
def within(context: Any, lanes: Any, limits: Any) -> Any:
    """Return a mask of the lanes whose absolute value is below a limit.

    Args:
        context: typing context of Numba.
        lanes: LANES numbers.
        limits: LANES limits, at least 0.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, limit = arguments
        below = builder.fcmp_ordered("<", value, limit)
        return builder.and_(below, builder.fcmp_ordered("<", builder.fneg(value), limit))

    return Lanes(types.boolean)(lanes, limits), generate


@intrinsic
def nonzero(context: Any, lanes: Any) -> Any:
    """Return a mask of the integer lanes that are not 0."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.icmp_unsigned("!=", arguments[0], ir.Constant(arguments[0].type, None))

    return Lanes(types.boolean)(lanes), generate


@intrinsic
def where(context: Any, which: Any, one: Any, other: Any) -> Any:
    """Return the lanes of ``one`` where the mask is true, else those in ``other``.

    Args:
        context: typing context of Numba.
        which: mask of LANES booleans.
        one: LANES numbers.
        other: LANES numbers.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return one(which, one, other), generate


@intrinsic
def bits(context: Any, which: Any) -> Any:
    """Convert a mask to the bits of a uint32, the first lane in the lowest bit."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(LANES))

    return types.uint32(which), generate


@intrinsic
def lanes_of(context: Any, word: Any) -> Any:
    """Convert the bits of a uint32 to a mask, the lowest bit to the first lane."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], target.get_value_type(signature.return_type))

    return Lanes(types.boolean)(types.uint32), generate


@intrinsic
def ones(context: Any, which: Any) -> Any:
    """Convert a mask to uint8 lanes that are 1 or 0."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(arguments[0], target.get_value_type(signature.return_type))

    return Lanes(types.uint8)(which), generate


@intrinsic
def with_bit(context: Any, words: Any, ones: Any, bit: Any) -> Any:
    """Return words with one bit set to the given values.

    Args:
        context: typing context of Numba.
        words: LANES uint32 words, in which the bit is 0.
        ones: LANES uint8 values, 0 or 1.
        bit: position of the bit, 0 to 31.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = arguments[0].type
        distance = _everywhere(builder, builder.trunc(arguments[2], lanes.element))
        return builder.or_(arguments[0], builder.shl(builder.zext(arguments[1], lanes), distance))

    return words(words, ones, types.int64), generate


def bfloat16(lanes):  # type: ignore[no-untyped-def]
    """Round float32 lanes to bfloat16 values; return float64 lanes unchanged."""
    raise NotImplementedError("only within compiled code")


@intrinsic
def _rounded(context: Any, lanes: Any) -> Any:
    """Round float32 lanes to the nearest bfloat16, ties to even."""

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


@extending.overload(bfloat16, inline="always")
def _bfloat16_overload(lanes):  # type: ignore[no-untyped-def]
    if lanes.number == types.float32:
        return lambda lanes: _rounded(lanes)
    return lambda lanes: lanes


def numbers(lanes):  # type: ignore[no-untyped-def]
    """Convert bfloat16 lanes, as uint16 bits, to float32; return other lanes unchanged."""
    raise NotImplementedError("only within compiled code")


@intrinsic
def _extended(context: Any, lanes: Any) -> Any:
    """Convert bfloat16 bits to float32."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integers = ir.VectorType(ir.IntType(32), LANES)
        upper = builder.zext(arguments[0], integers)
        upper = builder.shl(upper, ir.Constant(integers, [16] * LANES))
        return builder.bitcast(upper, target.get_value_type(signature.return_type))

    return Lanes(types.float32)(lanes), generate


@extending.overload(numbers, inline="always")
def _numbers_overload(lanes):  # type: ignore[no-untyped-def]
    if lanes.number == types.uint16:
        return lambda lanes: _extended(lanes)
    return lambda lanes: lanes


def stored(lanes, array):  # type: ignore[no-untyped-def]
    """Convert lanes to the precision of an array: the reverse of :func:`numbers`, with rounding."""
    raise NotImplementedError("only within compiled code")


@intrinsic
def _shortened(context: Any, lanes: Any) -> Any:
    """Return the upper halves of float32 lanes."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integers = ir.VectorType(ir.IntType(32), LANES)
        bits = builder.bitcast(arguments[0], integers)
        bits = builder.lshr(bits, ir.Constant(integers, [16] * LANES))
        return builder.trunc(bits, target.get_value_type(signature.return_type))

    return Lanes(types.uint16)(lanes), generate


@extending.overload(stored, inline="always")
def _stored_overload(lanes, array):  # type: ignore[no-untyped-def]
    if array.dtype == types.uint16:
        return lambda lanes, array: _shortened(bfloat16(lanes))
    return lambda lanes, array: lanes
