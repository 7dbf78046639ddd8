"""Padded copies and aligned buffers, as the kernels require them."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.fused.cpu.simd import CACHE_LINE


def padded(tensor: Tensor, *multiples: int) -> Tensor:
    """Return a contiguous tensor whose last axes are zero-padded to multiples.

    Args:
        tensor: ``(..., A, B)``.
        *multiples: number for each of the last axes; their sizes become multiples of it.
    """
    sizes = tensor.shape[-len(multiples) :]
    missing = [-size % multiple for size, multiple in zip(sizes, multiples, strict=True)]
    if any(missing):
        tensor = F.pad(tensor, [number for m in reversed(missing) for number in (0, m)])
    return tensor.contiguous()


def unwritten(size: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised contiguous tensor that begins at a multiple of CACHE_LINE bytes.

    NumPy allocates it. PyTorch's aligned allocations are rarely reused once freed: for the largest
    tensors the C library then requested new memory from the system again and again.

    Args:
        size: shape ``(...)`` of the tensor.
        dtype: precision of the tensor.
    """
    length = math.prod(size) * dtype.itemsize
    block = np.empty(length + CACHE_LINE, np.uint8)
    begin = -block.ctypes.data % CACHE_LINE
    return torch.from_numpy(block[begin : begin + length]).view(dtype).view(size)
