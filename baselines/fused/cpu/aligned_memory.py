"""Tensors as kernels take them."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.fused.cpu.simd import CACHE_LINE


def padded(tensor: Tensor, *multiples: int) -> Tensor:
    """Contiguous, with zeros behind the last axes, up to a multiple of each."""
    sizes = tensor.shape[-len(multiples) :]
    missing = [-size % multiple for size, multiple in zip(sizes, multiples, strict=True)]
    if any(missing):
        tensor = F.pad(tensor, [number for m in reversed(missing) for number in (0, m)])
    return tensor.contiguous()


def unwritten(size: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A contiguous tensor to be written, which begins at a multiple of CACHE_LINE.

    NumPy allocates it. PyTorch asks the C library for an alignment, and once freed such a block
    serves for another like it only as long as what lies around it is free too: of the largest
    tensors, new ones were then needed again and again.
    """
    length = math.prod(size) * dtype.itemsize
    block = np.empty(length + CACHE_LINE, np.uint8)
    begin = -block.ctypes.data % CACHE_LINE
    return torch.from_numpy(block[begin : begin + length]).view(dtype).view(size)
