"""Tensors that are computed when they are needed.

Code that knows a subclass uses its compact representation; to all other code it behaves as the
materialised tensor.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
# Functions that only move elements.
LAYOUT_FUNCTIONS = frozenset(
    {
        aten._unsafe_view.default,
        aten.alias.default,
        aten.clone.default,
        aten.detach.default,
        aten.permute.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.t.default,
        aten.transpose.int,
        aten.unsqueeze.default,
        aten.view.default,
    }
)


class LazyTensor(Tensor):
    """Base class of tensors that are computed on first use.

    Such a tensor is read-only, and the data that it is computed from must not change before.
    """

    def materialise(self) -> Tensor:
        """Return the values as a plain tensor of this tensor's shape ``(...)``."""
        raise NotImplementedError

    def rearranged(self, function: Any, *args: Any, **kwargs: Any) -> "LazyTensor | None":
        """Return the lazy result of a function that only moves elements, or None.

        Args:
            function: operator of ``torch.ops.aten``.
            *args: its arguments after this tensor.
            **kwargs: its keyword arguments.
        """
        return None

    def numpy(self, *, force: bool = False) -> Any:
        """Return the values as an array; see :meth:`torch.Tensor.numpy`."""
        return self._plain().numpy(force=force)

    def tolist(self) -> Any:
        """Return the values as nested lists; see :meth:`torch.Tensor.tolist`."""
        return self._plain().tolist()

    def _plain(self) -> Tensor:
        """Return the values, ``(...)``, which require a gradient if this tensor does."""
        return materialised(self.detach()).requires_grad_(self.requires_grad)

    def __repr__(self) -> str:  # type: ignore[override]
        """Return the name of the class and the values."""
        return f"{type(self).__name__}({materialised(self.detach())})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Rearrange the tensor if possible; otherwise call the function with its values.

        Args:
            function: operator of ``torch.ops.aten``.
            types: tensor classes among the arguments.
            args: positional arguments.
            kwargs: keyword arguments.

        Raises:
            TypeError: the function writes to a lazy tensor.
        """
        kwargs = dict(kwargs or {})
        if isinstance(args[0], LazyTensor):
            lazy = args[0].rearranged(function, *args[1:], **kwargs)
            if lazy is not None:
                return lazy
        if targets := _written(function, args, kwargs):
            raise TypeError(f"{function} writes to {type(targets[0]).__name__}, which is read-only")
        args, kwargs = tree_map_only(LazyTensor, materialised, (args, kwargs))
        return function(*args, **kwargs)


class ByteSpikes(LazyTensor):
    """Spikes through which gradients flow, of which one byte each is stored.

    Args:
        uint8: the spikes ``(...)``, 0 or 1, uint8, in any layout.
        dtype: floating-point dtype of this tensor.
    """

    uint8: Tensor

    @staticmethod
    def __new__(cls, uint8: Tensor, dtype: torch.dtype) -> "ByteSpikes":
        """Return the tensor without computing its values."""
        spikes: ByteSpikes = Tensor._make_wrapper_subclass(
            cls, uint8.shape, uint8.stride(), dtype=dtype, device=uint8.device
        )
        spikes.uint8 = uint8
        return spikes

    def __init__(self, uint8: Tensor, dtype: torch.dtype) -> None:
        super().__init__()

    def materialise(self) -> Tensor:
        """Return the spikes ``(...)`` in this tensor's dtype."""
        return self.uint8.to(self.dtype)

    def rearranged(self, function: Any, *args: Any, **kwargs: Any) -> LazyTensor | None:
        """Rearrange the bytes; see the base class."""
        if function not in LAYOUT_FUNCTIONS:
            return None
        return ByteSpikes(function(self.uint8, *args, **kwargs), self.dtype)


class WeightedSteps(LazyTensor):
    """Products ``w_t * x``, ``(T, N, ...)``: the gradient of a weighted sum over time steps.

    Args:
        weights: factors w ``(T,)``.
        step: the tensor x ``(N, ...)``.
    """

    weights: Tensor
    step: Tensor

    @staticmethod
    def __new__(cls, weights: Tensor, step: Tensor) -> "WeightedSteps":
        """Return the tensor without computing its values."""
        products: WeightedSteps = Tensor._make_wrapper_subclass(
            cls,
            (len(weights), *step.shape),
            (step.numel(), *step.stride()),
            dtype=step.dtype,
            device=step.device,
        )
        products.weights, products.step = weights, step
        return products

    def __init__(self, weights: Tensor, step: Tensor) -> None:
        super().__init__()

    def materialise(self) -> Tensor:
        """Return the products ``(T, N, ...)``."""
        return self.weights.view(-1, *[1] * self.step.dim()) * self.step


class LowRankSteps(LazyTensor):
    """Sums of products ``sum_r w[t, n, r] * x[n, r]``, ``(T, N, C, ...)``.

    They are the gradient of weighted sums over time, and of inner products at each time step. Two
    of them are added without computing either.

    Args:
        weights: factors w ``(T, N, R)``.
        maps: tensors x ``(N, R, C, ...)``.
        dtype: floating-point dtype of this tensor.
    """

    weights: Tensor
    maps: Tensor

    @staticmethod
    def __new__(cls, weights: Tensor, maps: Tensor, dtype: torch.dtype) -> "LowRankSteps":
        """Return the tensor without computing its values."""
        layout = channels_last((len(weights), len(maps)), maps.shape[3:], maps.shape[2])
        sums: LowRankSteps = Tensor._make_wrapper_subclass(
            cls, *layout, dtype=dtype, device=maps.device
        )
        sums.weights, sums.maps = weights, maps
        return sums

    def __init__(self, weights: Tensor, maps: Tensor, dtype: torch.dtype) -> None:
        super().__init__()

    def materialise(self) -> Tensor:
        """Return the sums ``(T, N, C, ...)``, with the channels last in memory."""
        by_channel = self.maps.movedim(2, -1)
        sums = by_channel.new_empty((*self.shape[:2], by_channel[0, 0].numel()))
        # Written in its place: otherwise the result has the images first in memory.
        torch.bmm(self.weights.transpose(0, 1), by_channel.flatten(2), out=sums.transpose(0, 1))
        return sums.unflatten(2, by_channel.shape[2:]).movedim(-1, 2).to(self.dtype)

    def rearranged(self, function: Any, *args: Any, **kwargs: Any) -> LazyTensor | None:
        """Add other such sums by adding terms; see the base class."""
        if function is not aten.add.Tensor or kwargs or not isinstance(args[0], LowRankSteps):
            return None
        weights = torch.cat([self.weights, args[0].weights], 2)
        return LowRankSteps(weights, torch.cat([self.maps, args[0].maps], 1), self.dtype)


def channels_last(
    leading: Sequence[int], size: Sequence[int], channels: int
) -> tuple[torch.Size, tuple[int, ...]]:
    """Return shape and strides of a tensor whose channels lie last in memory.

    Args:
        leading: sizes of the axes before the channels.
        size: sizes of the axes after the channels.
        channels: number of channels.

    >>> channels_last((5,), (4, 2), 3)
    (torch.Size([5, 3, 4, 2]), (24, 1, 6, 3))
    """
    tensor = torch.empty((*leading, *size, channels), device="meta").movedim(-1, len(leading))
    return tensor.shape, tensor.stride()


def materialised(tensor: Tensor) -> Tensor:
    """Return a tensor ``(...)`` as a plain one."""
    return tensor.materialise() if isinstance(tensor, LazyTensor) else tensor


def bytes_of(spikes: Tensor) -> Tensor:
    """Return spikes ``(...)`` of any kind as uint8."""
    return spikes.uint8 if isinstance(spikes, ByteSpikes) else spikes.to(torch.uint8)


def _written(function: Any, args: Any, kwargs: Mapping[str, Any]) -> list[LazyTensor]:
    """Return the lazy tensors among the arguments that a function writes to."""
    if not function._schema.is_mutable:
        return []
    parameters = function._schema.arguments
    given = {p.name: value for p, value in zip(parameters, args, strict=False)} | dict(kwargs)
    targets = [given.get(parameter.name) for parameter in parameters if parameter.is_write]
    return [target for target in targets if isinstance(target, LazyTensor)]
