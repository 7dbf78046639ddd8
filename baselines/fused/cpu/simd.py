"""Vectors of 32 numbers in compiled code: a Numba type and its operations.

Numba leaves it to LLVM to find loops that can use vector registers. Where LLVM does not find them,
kernels use :class:`Vector32`; LLVM splits its operations into instructions of the processor.
Within compiled code vectors of one type can be added, subtracted, multiplied and divided with
``+``, ``+=``, ``-``, ``*`` and ``/``; each operation rounds once, nothing is fused unless
:func:`multiply_add` is called.
"""

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import extending
from numba.core.imputils import lower_builtin
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate, infer_global

LANES = 32
CACHE_LINE = 64

# The type of a vector in annotations; mypy does not see Numba's types.
Vector = Any
# Its caller passes other arguments than its definition names, so its types cannot be checked.
intrinsic: Any = extending.intrinsic


class Vector32(types.Type):
    """Numba type of a vector of LANES elements.

    Attributes:
        element: Numba type of an element; boolean for masks.
    """

    def __init__(self, element: types.Type) -> None:
        self.element = element
        super().__init__(f"Vector32({element})")


@extending.register_model(Vector32)
class _Vector32Model(extending.models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector32) -> None:
        element = manager.lookup(vector.element).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, LANES))


def _define_operator(function: Any, instruction: str) -> None:
    """Make a Python operator on two vectors of one type an LLVM instruction."""

    @infer_global(function)
    class _Typing(AbstractTemplate):
        def generic(self, args: Any, kwargs: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], Vector32) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    @lower_builtin(function, Vector32, Vector32)
    def _lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, instruction)(*arguments)


for _function, _instruction in (
    (operator.add, "fadd"),
    (operator.iadd, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define_operator(_function, _instruction)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


def _broadcast(builder: Any, number: Any) -> Any:
    undefined = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, undefined, zeros)


@intrinsic
def load_scalar(context: Any, array: Any, index: Any) -> Any:
    """Return ``array[index]`` without a check of the index.

    Args:
        context: Numba's typing context.
        array: flat array.
        index: index, at least 0.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_pointer(target, builder, signature.args[0], *arguments))

    return array.dtype(array, types.int64), generate


@intrinsic
def store_scalar(context: Any, array: Any, index: Any, number: Any) -> Any:
    """Write ``array[index] = number`` without a check of the index.

    Args:
        context: Numba's typing context.
        array: flat array, written.
        index: index, at least 0.
        number: number of the array's dtype.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _pointer(target, builder, signature.args[0], *arguments[:2]))
        return target.get_dummy_value()

    return types.void(array, types.int64, array.dtype), generate


@intrinsic
def load(context: Any, array: Any, index: Any) -> Any:
    """Return the vector ``array[index : index + LANES]``.

    Args:
        context: Numba's typing context.
        array: flat array.
        index: index of the first element.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type = signature.args[0]
        pointer = _pointer(target, builder, array_type, *arguments)
        vector = target.get_value_type(signature.return_type).as_pointer()
        return builder.load(builder.bitcast(pointer, vector), align=array_type.dtype.bitwidth // 8)

    return Vector32(array.dtype)(array, types.int64), generate


@intrinsic
def store(context: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write ``array[index : index + LANES] = vector``.

    Args:
        context: Numba's typing context.
        array: flat array, written.
        index: index of the first element.
        vector: vector of the array's elements.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type = signature.args[0]
        pointer = _pointer(target, builder, array_type, *arguments[:2])
        value = arguments[2]
        pointer = builder.bitcast(pointer, value.type.as_pointer())
        builder.store(value, pointer, align=array_type.dtype.bitwidth // 8)
        return target.get_dummy_value()

    return types.void(array, types.int64, vector), generate


@intrinsic
def store_nontemporal(context: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write a vector past the caches, for values that are not read soon.

    Call :func:`store_fence` after the last such store.

    Args:
        context: Numba's typing context.
        array: flat array, written.
        index: index of the first element; its address must be a multiple of CACHE_LINE.
        vector: vector of the array's elements.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(target, builder, signature.args[0], *arguments[:2])
        value = arguments[2]
        pointer = builder.bitcast(pointer, value.type.as_pointer())
        instruction = builder.store(value, pointer, align=CACHE_LINE)
        once = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        instruction.set_metadata("nontemporal", once)
        return target.get_dummy_value()

    return types.void(array, types.int64, vector), generate


@intrinsic
def store_fence(context: Any) -> Any:
    """Make all preceding nontemporal stores visible to other threads."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return target.get_dummy_value()

    return types.void(), generate


@intrinsic
def multiply_add(context: Any, total: Any, one: Any, other: Any) -> Any:
    """Return ``total + one * other``, rounded once if the processor has such an instruction.

    Args:
        context: Numba's typing context.
        total: vector of numbers.
        one: vector of numbers.
        other: vector of numbers.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        product = builder.fmul(*arguments[1:], flags=("contract",))
        return builder.fadd(arguments[0], product, flags=("contract",))

    return total(total, one, other), generate


@intrinsic
def broadcast(context: Any, number: Any) -> Any:
    """Return a vector with a number in every lane."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _broadcast(builder, arguments[0])

    return Vector32(number)(number), generate


@intrinsic
def is_positive(context: Any, vector: Any) -> Any:
    """Return the mask of the lanes above 0."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fcmp_ordered(">", arguments[0], ir.Constant(arguments[0].type, None))

    return Vector32(types.boolean)(vector), generate


@intrinsic
def is_nonzero(context: Any, vector: Any) -> Any:
    """Return the mask of the lanes, integers, that are not 0."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.icmp_unsigned("!=", arguments[0], ir.Constant(arguments[0].type, None))

    return Vector32(types.boolean)(vector), generate


@intrinsic
def select(context: Any, mask: Any, one: Any, other: Any) -> Any:
    """Return the lanes of ``one`` where a mask is true, else the lanes of ``other``.

    Args:
        context: Numba's typing context.
        mask: mask.
        one: vector.
        other: vector.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return one(mask, one, other), generate


@intrinsic
def to_bitmask(context: Any, mask: Any) -> Any:
    """Return a mask as a uint32, the first lane as the lowest bit."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(LANES))

    return types.uint32(mask), generate


@intrinsic
def from_bitmask(context: Any, word: Any) -> Any:
    """Return a uint32 as a mask, the lowest bit as the first lane."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], target.get_value_type(signature.return_type))

    return Vector32(types.boolean)(types.uint32), generate


@intrinsic
def to_uint8(context: Any, mask: Any) -> Any:
    """Return a vector of uint8 that is 1 where the mask is true, else 0."""

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(arguments[0], target.get_value_type(signature.return_type))

    return Vector32(types.uint8)(mask), generate


@intrinsic
def set_bit(context: Any, words: Any, ones: Any, bit: Any) -> Any:
    """Return words with one bit set.

    Args:
        context: Numba's typing context.
        words: vector of uint32, in which the bit is 0.
        ones: vector of uint8, 0 or 1, the values of the bit.
        bit: position of the bit, 0 to 31.
    """

    def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = arguments[0].type
        distance = _broadcast(builder, builder.trunc(arguments[2], vector.element))
        return builder.or_(arguments[0], builder.shl(builder.zext(arguments[1], vector), distance))

    return words(words, ones, types.int64), generate
