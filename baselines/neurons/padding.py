"""Tensors as kernels take them."""

import torch.nn.functional as F
from torch import Tensor


def padded(tensor: Tensor, *multiples: int) -> Tensor:
    """Contiguous, with zeros behind the last axes, up to a multiple of each."""
    sizes = tensor.shape[-len(multiples) :]
    missing = [-size % multiple for size, multiple in zip(sizes, multiples, strict=True)]
    if any(missing):
        tensor = F.pad(tensor, [number for m in reversed(missing) for number in (0, m)])
    return tensor.contiguous()
