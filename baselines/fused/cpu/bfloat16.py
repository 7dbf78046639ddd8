"""Conversion between the elements of arrays and numbers, within compiled code.

NumPy has no bfloat16. Arrays of it are uint16 here, and are computed in float32.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.extending import overload

from baselines.fused.cpu.simd import LANES, Vector32, intrinsic


def to_number(element: Any) -> Any:
    """Return an array's element as a number: bfloat16 in float32, others unchanged.

    Args:
        element: a scalar or a vector of LANES elements.
    """
    raise NotImplementedError("only within compiled code")


def to_element(number: Any, like: Any) -> Any:
    """Return a number as an element of an array that holds elements like ``like``.

    Bfloat16 rounds to nearest, ties to even.

    Args:
        number: a scalar or a vector of LANES numbers.
        like: a scalar, an element of the array.
    """
    raise NotImplementedError("only within compiled code")


def as_bfloat16(numbers: Any) -> Any:
    """Return a vector of LANES float32 numbers rounded to bfloat16; of float64, unchanged."""
    raise NotImplementedError("only within compiled code")


def _matching(element: types.Type, number: types.Type) -> types.Type:
    """Return the type of a number, or of a vector of such numbers for a vector of elements."""
    return Vector32(number) if isinstance(element, Vector32) else number


def _constant(value: ir.Value, number: int) -> ir.Constant:
    """Return an integer as a constant of a value's type."""
    vector = isinstance(value.type, ir.VectorType)
    return ir.Constant(value.type, [number] * LANES if vector else number)


@intrinsic
def _extended(context: Any, element: Any) -> Any:
    """Return bfloat16 as float32, whose upper half it is."""
    number, word = _matching(element, types.float32), _matching(element, types.uint32)

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.zext(arguments[0], target.get_value_type(word))
        bits = builder.shl(bits, _constant(bits, 16))
        return builder.bitcast(bits, target.get_value_type(number))

    return number(element), generate


@intrinsic
def _rounded(context: Any, number: Any) -> Any:
    """Return float32 rounded to bfloat16."""
    element, word = _matching(number, types.uint16), _matching(number, types.uint32)

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], target.get_value_type(word))
        sixteen = _constant(bits, 16)
        odd = builder.and_(builder.lshr(bits, sixteen), _constant(bits, 1))
        bits = builder.add(bits, builder.add(odd, _constant(bits, 0x7FFF)))
        return builder.trunc(builder.lshr(bits, sixteen), target.get_value_type(element))

    return element(number), generate


@overload(to_number, inline="always")
def _to_number_overload(element: Any) -> Any:
    def extended(element: Any) -> Any:
        return _extended(element)

    def unchanged(element: Any) -> Any:
        return element

    bfloat16 = element in (types.uint16, Vector32(types.uint16))
    return extended if bfloat16 else unchanged


@overload(to_element, inline="always")
def _to_element_overload(number: Any, like: Any) -> Any:
    def spike(number: Any, like: Any) -> Any:
        return types.uint8(number)

    def rounded(number: Any, like: Any) -> Any:
        return _rounded(number)

    def unchanged(number: Any, like: Any) -> Any:
        return number

    return {types.uint8: spike, types.uint16: rounded}.get(like, unchanged)


@overload(as_bfloat16, inline="always")
def _as_bfloat16_overload(numbers: Any) -> Any:
    def rounded(numbers: Any) -> Any:
        return _extended(_rounded(numbers))

    def unchanged(numbers: Any) -> Any:
        return numbers

    return rounded if numbers == Vector32(types.float32) else unchanged
