"""Tensors as kernels need them: padded to whole vectors, or aligned for nontemporal stores."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.fused.cpu.simd import CACHE_LINE


def padded(tensor: Tensor, *multiples: int) -> Tensor:
    """Return a contiguous tensor whose last axes are zero-padded to multiples of given sizes.

    Args:
        tensor: tensor ``(..., A, B)`` for two multiples, ``(..., A)`` for one.
        *multiples: sizes for the last axes, in their order.

    >>> padded(torch.ones(1, 3), 4)
    tensor([[1., 1., 1., 0.]])
    """
    sizes = tensor.shape[-len(multiples) :]
    missing = [-size % multiple for size, multiple in zip(sizes, multiples, strict=True)]
    if any(missing):
        tensor = F.pad(tensor, [number for m in reversed(missing) for number in (0, m)])
    return tensor.contiguous()


def empty_aligned(size: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return an uninitialised contiguous tensor ``(*size)`` that begins at a cache line.

    NumPy allocates it. PyTorch requests aligned blocks, which the C library can reuse only while
    their neighbours are also free: large tensors then fragment the heap.
    """
    length = math.prod(size) * dtype.itemsize
    block = np.empty(length + CACHE_LINE, np.uint8)
    begin = -block.ctypes.data % CACHE_LINE
    return torch.from_numpy(block[begin : begin + length]).view(dtype).view(size)
