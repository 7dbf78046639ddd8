"""A check that a checkpoint holds all that training changes in a model."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.model import GenerativeModel

_OF_EVERY_MODULE = vars(nn.Module()).keys()
# What the harness gave to the model; a checkpoint need not hold it.
_GIVEN = {"image_shape", "protocol", "backend", "training"}
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_MISSING = object()


_STATE_OF: dict[type, Any] = {
    random.Random: random.Random.getstate,
    torch.Generator: torch.Generator.get_state,
    np.random.Generator: lambda generator: generator.bit_generator.state,
    np.random.RandomState: np.random.RandomState.get_state,
}


_COMPARED: tuple[type, ...] = (
    *_PLAIN,
    list,
    tuple,
    dict,
    set,
    Tensor,
    np.ndarray,
    *_STATE_OF,
)


def check_held(model: GenerativeModel, restored: GenerativeModel) -> None:
    """Check that a model that was built again and got the checkpoint's state is as the trained one.

    Compared are numbers, texts, tensors, arrays, random generators and containers of them that are
    attributes of the model, and numbers and texts of its submodules. Parameters, buffers, and what
    has a ``state_dict`` are held by the checkpoint.

    Args:
        model: the model in training.
        restored: the model that a resumed training would go on with.

    Raises:
        TypeError: an attribute differs; the message names it.
    """
    name = _changed(model, restored)
    if name is not None:
        raise TypeError(
            f"training changes {type(model).__name__}.{name}, and a checkpoint does not hold it, "
            "so a resumed training would differ: register it as a buffer, or return it from "
            "training_state and set it in load_training_state"
        )


def _changed(model: GenerativeModel, restored: GenerativeModel) -> str | None:
    """Return the name of the first attribute that differs, or None."""
    others = dict(restored.named_modules())
    for path, module in model.named_modules():
        kinds = _PLAIN if path else _COMPARED
        other = _attributes(others[path]) if path in others else {}
        for name, value in _attributes(module).items():
            if isinstance(value, kinds) and not _same(value, other.get(name, _MISSING)):
                return f"{path}.{name}" if path else name
    return None


def _attributes(module: nn.Module) -> dict[str, Any]:
    ignored = _OF_EVERY_MODULE | _GIVEN
    return {name: value for name, value in vars(module).items() if name not in ignored}


def _same(value: Any, other: Any) -> bool:
    """Return True if two values are equal; values of other types count as equal."""
    state = _STATE_OF.get(type(value))
    if state is not None:
        return type(other) is type(value) and _same(state(value), state(other))
    if isinstance(value, Tensor | np.ndarray):
        return _same_numbers(value, other)
    if isinstance(value, Mapping):
        return (
            isinstance(other, Mapping)
            and value.keys() == other.keys()
            and all(_same(value[key], other[key]) for key in value)
        )
    if isinstance(value, list | tuple):
        return (
            isinstance(other, list | tuple)
            and len(value) == len(other)
            and all(map(_same, value, other))
        )
    if isinstance(value, (*_PLAIN, set)):
        return bool(value == other) or (value != value and other != other)
    return True


def _same_numbers(value: Tensor | np.ndarray, other: Any) -> bool:
    if type(other) is not type(value) or value.shape != other.shape:
        return False
    one, another = (torch.as_tensor(each).detach().cpu() for each in (value, other))
    return torch.equal(one.nan_to_num(), another.nan_to_num())
