"""Check of the losses that a model's training step returns."""

from collections.abc import Mapping
from typing import Any

from bench.model import GenerativeModel
from bench.system.numbers import described, python_number


def checked_losses(model: GenerativeModel, returned: Any) -> dict[str, float]:
    """Return the losses of a training step as Python numbers.

    Tensors without dimensions become numbers, so that they keep no computation graph alive.

    Args:
        model: model that made the step.
        returned: result of its ``training_step``.

    Raises:
        TypeError: the result is not a mapping of strings to numbers with the key ``loss``; the
            message names the model and what it returned.
    """
    if not isinstance(returned, Mapping):
        raise _wrong(model, described(returned))
    losses = {}
    for name, value in returned.items():
        number = python_number(value)
        if not isinstance(name, str) or number is None:
            raise _wrong(model, f"{described(value)} under the key {name!r}")
        losses[name] = float(number)
    if "loss" not in losses:
        raise _wrong(model, f"the keys {', '.join(losses) or '(none)'} without 'loss'")
    return losses


def _wrong(model: GenerativeModel, what: str) -> TypeError:
    return TypeError(
        f"training_step of {type(model).__name__} returned {what}; return a dictionary of numbers "
        "with the key 'loss', as in {'loss': loss.item()}"
    )
