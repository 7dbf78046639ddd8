"""Tensors whose numbers are computed once they are needed.

Whoever knows their kind takes what they are made of. For anyone else they are the numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
# What changes only where the numbers stand.
LAYOUTS = frozenset(
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


class Deferred(Tensor):
    """The base class: a result on the way to its next user.

    What it is made of must not change before it is computed, and it cannot be written to.
    """

    def computed(self) -> Tensor:
        """The numbers."""
        raise NotImplementedError

    def rearranged(self, function: Any, *args: Any, **kwargs: Any) -> "Deferred | None":
        """What a function makes of it, if that needs no numbers."""
        return None

    def numpy(self, *, force: bool = False) -> Any:
        """The numbers as an array; see :meth:`torch.Tensor.numpy`."""
        return self._plain().numpy(force=force)

    def tolist(self) -> Any:
        """The numbers as lists; see :meth:`torch.Tensor.tolist`."""
        return self._plain().tolist()

    def _plain(self) -> Tensor:
        """The numbers, which require a gradient if it does."""
        return computed(self.detach()).requires_grad_(self.requires_grad)

    def __repr__(self) -> str:  # type: ignore[override]
        """Its name and its numbers."""
        return f"{type(self).__name__}({computed(self.detach())})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Rearrange it if it can be; else the function is given the numbers.

        Raises:
            TypeError: the function writes to it.
        """
        kwargs = dict(kwargs or {})
        if isinstance(args[0], Deferred):
            found = args[0].rearranged(function, *args[1:], **kwargs)
            if found is not None:
                return found
        if written := _written(function, args, kwargs):
            raise TypeError(f"{function} writes to {type(written[0]).__name__}, which are computed")
        args, kwargs = tree_map_only(Deferred, computed, (args, kwargs))
        return function(*args, **kwargs)


class Spikes(Deferred):
    """Spikes in numbers through which gradients flow, and of which a byte each is kept."""

    fired: Tensor

    @staticmethod
    def __new__(cls, fired: Tensor, dtype: torch.dtype) -> "Spikes":
        """Of bytes that are 0 or 1, of any shape and layout."""
        spikes: Spikes = Tensor._make_wrapper_subclass(
            cls, fired.shape, fired.stride(), dtype=dtype, device=fired.device
        )
        spikes.fired = fired
        return spikes

    def __init__(self, fired: Tensor, dtype: torch.dtype) -> None:
        super().__init__()

    def computed(self) -> Tensor:
        """The spikes in their precision."""
        return self.fired.to(self.dtype)

    def rearranged(self, function: Any, *args: Any, **kwargs: Any) -> Deferred | None:
        """The bytes are."""
        if function not in LAYOUTS:
            return None
        return Spikes(function(self.fired, *args, **kwargs), self.dtype)


class Weighted(Deferred):
    """``w_t * x``, ``(T, N, ...)``: the gradient of a weighted sum over time steps."""

    weights: Tensor
    step: Tensor

    @staticmethod
    def __new__(cls, weights: Tensor, step: Tensor) -> "Weighted":
        """Of w ``(T,)`` and x ``(N, ...)``."""
        weighted: Weighted = Tensor._make_wrapper_subclass(
            cls,
            (len(weights), *step.shape),
            (step.numel(), *step.stride()),
            dtype=step.dtype,
            device=step.device,
        )
        weighted.weights, weighted.step = weights, step
        return weighted

    def __init__(self, weights: Tensor, step: Tensor) -> None:
        super().__init__()

    def computed(self) -> Tensor:
        """The products."""
        return self.weights.view(-1, *[1] * self.step.dim()) * self.step


def channels_last(
    before: Sequence[int], size: Sequence[int], channels: int
) -> tuple[torch.Size, tuple[int, ...]]:
    """Shape ``(*before, C, *size)`` and strides of a tensor whose channels lie last in memory."""
    laid_out = torch.empty((*before, *size, channels), device="meta").movedim(-1, len(before))
    return laid_out.shape, laid_out.stride()


def _written(function: Any, args: Any, kwargs: Mapping[str, Any]) -> list[Deferred]:
    """The arguments that a function writes to and that cannot be."""
    if not function._schema.is_mutable:
        return []
    named = {a.name: value for a, value in zip(function._schema.arguments, args, strict=False)}
    given = {**named, **kwargs}
    found = [given.get(a.name) for a in function._schema.arguments if a.is_write]
    return [value for value in found if isinstance(value, Deferred)]


def computed(tensor: Tensor) -> Tensor:
    """The numbers of a tensor of any kind."""
    return tensor.computed() if isinstance(tensor, Deferred) else tensor


def bytes_of(spikes: Tensor) -> Tensor:
    """Spikes of any kind in bytes."""
    return spikes.fired if isinstance(spikes, Spikes) else spikes.to(torch.uint8)
