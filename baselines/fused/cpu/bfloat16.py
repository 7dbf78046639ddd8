"""Conversion between the elements of arrays and numbers, within compiled code.

NumPy has no bfloat16. Arrays of it are uint16 here, and are computed in float32.
"""

from typing import Any

import numpy as np
from numba import float32, types, uint32
from numba.core.extending import overload

from baselines.fused.cpu.simd import intrinsic


def to_number(element: Any) -> Any:
    """Return an array's element as a number: bfloat16 in float32, others unchanged."""
    raise NotImplementedError("only within compiled code")


def to_element(number: Any, like: Any) -> Any:
    """Return a number as an element of an array that holds elements like ``like``.

    Bfloat16 rounds to nearest, ties to even.
    """
    raise NotImplementedError("only within compiled code")


@intrinsic
def _from_bits(context: Any, bits: Any) -> Any:
    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], target.get_value_type(types.float32))

    return float32(uint32), generate


@intrinsic
def _to_bits(context: Any, number: Any) -> Any:
    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], target.get_value_type(types.uint32))

    return uint32(float32), generate


@overload(to_number, inline="always")
def _to_number_overload(element: Any) -> Any:
    def extended(element: Any) -> Any:
        return _from_bits(np.uint32(np.uint32(element) << np.uint32(16)))

    def unchanged(element: Any) -> Any:
        return element

    return extended if element == types.uint16 else unchanged


@overload(to_element, inline="always")
def _to_element_overload(number: Any, like: Any) -> Any:
    def spike(number: Any, like: Any) -> Any:
        return np.uint8(number)

    def rounded_to_even(number: Any, like: Any) -> Any:
        bits = _to_bits(np.float32(number))
        half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return np.uint16((bits + half) >> np.uint32(16))

    def unchanged(number: Any, like: Any) -> Any:
        return number

    return {types.uint8: spike, types.uint16: rounded_to_even}.get(like, unchanged)
