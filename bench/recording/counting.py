"""Counts of the elements of a tensor that are not 0, read once and in the order of the memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.backend import at_least_float32

BYTE = torch.iinfo(torch.uint8)


def memory_order(tensor: Tensor, leading: int) -> list[int]:
    """Return the axes of a tensor ``(...)``, as its elements lie in memory, outermost first.

    Args:
        tensor: tensor of any layout.
        leading: number of axes that keep their place at the front.

    >>> memory_order(torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last), 1)
    [0, 2, 3, 1]
    """
    trailing = sorted(range(leading, tensor.ndim), key=tensor.stride, reverse=True)
    return [*range(leading), *trailing]


def unordered(tensor: Tensor, axes: Sequence[int]) -> Tensor:
    """Return the tensor ``(...)`` of which the given one is ``permute(axes)``.

    >>> unordered(torch.zeros(2, 3, 4).permute(2, 0, 1), [2, 0, 1]).shape
    torch.Size([2, 3, 4])
    """
    return tensor.permute(*torch.tensor(axes).argsort().tolist())


def nonzero(values: Tensor) -> Tensor:
    """Return 1 where values ``(...)`` are not 0, else 0, as uint8 ``(...)``.

    >>> nonzero(torch.tensor([0.0, -2.0])).tolist()
    [0, 1]
    """
    if values.dtype == torch.uint8 and is_binary(values):
        return values
    return (values != 0).view(torch.uint8)


def total(values: Tensor) -> Tensor:
    """Return the sum of values ``(N, ...)``, float64; exact for values that are 0 or 1.

    >>> total(torch.tensor([[0.5, 0.0], [1.0, 1.0]])).item()
    2.5
    """
    # The sums of single images in float32 are exact, and faster than a sum in float64.
    return at_least_float32(values).flatten(1).sum(1).double().sum()


def is_binary(values: Tensor) -> bool:
    """Return True if all elements of a uint8 tensor ``(...)`` are 0 or 1."""
    return values.numel() == 0 or int(values.amax()) <= 1


def counter(shape: Sequence[int], terms: int, device: torch.device) -> Tensor:
    """Return zeros ``(...)`` to which bytes that are 0 or 1 can be added.

    Args:
        shape: shape of the tensor.
        terms: number of additions, of which none may overflow.
        device: device of the tensor.
    """
    dtype = torch.uint8 if terms <= BYTE.max else torch.int32
    return torch.zeros(shape, dtype=dtype, device=device)
