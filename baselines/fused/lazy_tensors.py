"""Lazy tensors, whose values are computed when an operation needs them.

The kernels of this backend recognise the subclasses and use their operands directly. To all other
operations they are ordinary tensors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
# Operations that change only the layout.
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
    """Base class of lazy tensors.

    The operands must not change before the values are computed. Lazy tensors cannot be written to.
    """

    def computed(self) -> Tensor:
        """Compute the values ``(...)``."""
        raise NotImplementedError

    def rearranged(self, function: Any, *args: Any, **kwargs: Any) -> "Deferred | None":
        """Return the lazy result of an operation that needs no values, else None.

        Args:
            function: PyTorch operation.
            *args: arguments after the tensor.
            **kwargs: keyword arguments.
        """
        return None

    def numpy(self, *, force: bool = False) -> Any:
        """Compute the values as an array; see :meth:`torch.Tensor.numpy`."""
        return self._plain().numpy(force=force)

    def tolist(self) -> Any:
        """Compute the values as nested lists; see :meth:`torch.Tensor.tolist`."""
        return self._plain().tolist()

    def _plain(self) -> Tensor:
        """Return the values as an ordinary tensor with the same ``requires_grad``."""
        return computed(self.detach()).requires_grad_(self.requires_grad)

    def __repr__(self) -> str:  # type: ignore[override]
        """Return the class name and the values."""
        return f"{type(self).__name__}({computed(self.detach())})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Keep the result lazy if possible, else run the operation on the computed values.

        Raises:
            TypeError: the operation writes to a lazy tensor.
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
    """Differentiable spikes in floating point, of which only uint8 copies are stored."""

    fired: Tensor

    @staticmethod
    def __new__(cls, fired: Tensor, dtype: torch.dtype) -> "Spikes":
        """Return spikes ``(...)`` of a precision for uint8 spikes ``(...)`` of any layout."""
        spikes: Spikes = Tensor._make_wrapper_subclass(
            cls, fired.shape, fired.stride(), dtype=dtype, device=fired.device
        )
        spikes.fired = fired
        return spikes

    def __init__(self, fired: Tensor, dtype: torch.dtype) -> None:
        super().__init__()

    def computed(self) -> Tensor:
        """Convert the spikes ``(...)`` to their precision."""
        return self.fired.to(self.dtype)

    def rearranged(self, function: Any, *args: Any, **kwargs: Any) -> Deferred | None:
        """Apply an operation that changes only the layout to the uint8 spikes, else return None.

        Args:
            function: PyTorch operation.
            *args: arguments after the spikes.
            **kwargs: keyword arguments.
        """
        if function not in LAYOUTS:
            return None
        return Spikes(function(self.fired, *args, **kwargs), self.dtype)


class Weighted(Deferred):
    """Lazy products ``w_t * x``, ``(T, N, ...)``: gradients of a weighted sum over time."""

    weights: Tensor
    step: Tensor

    @staticmethod
    def __new__(cls, weights: Tensor, step: Tensor) -> "Weighted":
        """Return the products of weights ``(T,)`` and one step ``(N, ...)``."""
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
        """Compute the products ``(T, N, ...)``."""
        return self.weights.view(-1, *[1] * self.step.dim()) * self.step


def channels_last(
    before: Sequence[int], size: Sequence[int], channels: int
) -> tuple[torch.Size, tuple[int, ...]]:
    """Return the shape ``(*before, C, *size)`` and the strides of a channels-last tensor.

    Args:
        before: sizes of the axes before the channels.
        size: sizes of the axes after the channels.
        channels: C.
    """
    laid_out = torch.empty((*before, *size, channels), device="meta").movedim(-1, len(before))
    return laid_out.shape, laid_out.stride()


def _written(function: Any, args: Any, kwargs: Mapping[str, Any]) -> list[Deferred]:
    """Return the lazy tensors among the arguments that an operation writes to."""
    if not function._schema.is_mutable:
        return []
    named = {a.name: value for a, value in zip(function._schema.arguments, args, strict=False)}
    given = {**named, **kwargs}
    found = [given.get(a.name) for a in function._schema.arguments if a.is_write]
    return [value for value in found if isinstance(value, Deferred)]


def computed(tensor: Tensor) -> Tensor:
    """Compute the values ``(...)`` of a lazy tensor; return other tensors unchanged."""
    return tensor.computed() if isinstance(tensor, Deferred) else tensor


def bytes_of(spikes: Tensor) -> Tensor:
    """Return spikes ``(...)`` of any kind as uint8."""
    return spikes.fired if isinstance(spikes, Spikes) else spikes.to(torch.uint8)
