"""Compiled CPU kernels: the decorator, and how their work is divided."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba
import numpy as np
import torch
from numba.core import config
from numpy.typing import NDArray

# An array, of the shape and dtype that the docstring gives; and a NumPy scalar of a kernel's dtype.
Array = NDArray[Any]
Scalar = Any

# Kernels divide their work into this many pieces. Each sums on its own, and the sums are added in
# order, so results do not depend on the number of threads.
PIECES = 64
# Kernels whose largest array has fewer elements run on one thread.
SMALL = 2**16


class Kernel:
    """A compiled function in two variants: on one thread, and on as many as PyTorch uses.

    Arguments are arrays, numbers, and named tuples of these. The first variant is for little work:
    on a busy machine, threads that wait for each other cost more than they save.

    Args:
        function: function to compile, in Numba's subset of Python. It loops over
            ``numba.prange(PIECES)`` or another range that does not depend on the threads.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        assert isinstance(function, FunctionType)
        self.__doc__ = function.__doc__
        serial = FunctionType(function.__code__, function.__globals__)
        # Numba finds its cached code by this name.
        serial.__qualname__ = f"{function.__qualname__}_serial"
        self._serial = numba.njit(serial, nogil=True, cache=True, error_model="numpy")
        self._parallel = numba.njit(
            function, parallel=True, nogil=True, cache=True, error_model="numpy"
        )

    def __call__(self, *arguments: Any, **named: Any) -> None:
        """Run on the arguments; output arrays are written in place."""
        available: int = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        threads = min(torch.get_num_threads(), available)
        if threads == 1 or _largest_size((*arguments, *named.values())) < SMALL:
            self._serial(*arguments, **named)
        else:
            numba.set_num_threads(threads)
            self._parallel(*arguments, **named)


def _largest_size(arguments: tuple[Any, ...]) -> int:
    """Return the number of elements of the largest array in tuples of arguments."""
    sizes = [0]
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            sizes.append(argument.size)
        elif isinstance(argument, tuple):
            sizes.append(_largest_size(argument))
    return max(sizes)


# A helper is copied into each kernel that calls it, or called. In the loop over pieces, Numba takes
# an assignment to an element of a tuple's array for dead code: such arrays must be written by the
# functions of simd.py, or in a helper that is called.
inlined: Any = numba.njit(inline="always")
called: Any = numba.njit(nogil=True, error_model="numpy")


@inlined
def part(piece: int, count: int) -> range:
    """Return the share of ``range(count)`` that belongs to one of the PIECES."""
    return range(piece * count // PIECES, (piece + 1) * count // PIECES)
