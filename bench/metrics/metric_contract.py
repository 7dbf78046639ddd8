"""Checks of metrics against their contract: the class and the observations that it yields."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, get_args

from torch import Tensor

from bench.metrics.metric import Metric, Need, Observation
from bench.store.schema import OK, SPLITS, STATUSES, Headline
from bench.system.class_attributes import (
    FLAG,
    FLAG_OR_NONE,
    NAMES,
    TEXT,
    Expected,
    check_attributes,
    is_number,
    some_of,
)
from bench.system.numbers import described, python_number

_NEEDS = some_of(get_args(Need))
_ATTRIBUTES = {
    "unit": TEXT,
    "higher_is_better": FLAG_OR_NONE,
    "tolerance": Expected("a number from 0", lambda value: is_number(value) and value >= 0),
    "version": TEXT,
    "needs": _NEEDS,
    "needs_any": _NEEDS,
    "extractors": NAMES,
    "selects_epochs": FLAG,
    "selections_of": NAMES,
    "has_scale": FLAG,
    "reproducible": FLAG,
    "headline": Expected(
        "a Headline or None", lambda value: value is None or isinstance(value, Headline)
    ),
}
_NUMBERS = ("ci_low", "ci_high", "noise_level")
_TEXTS = ("layer", "reason", "noise_kind", "extractor", "extractor_sha256", "epoch_selection")


def check_class(name: str, metric: type[Metric]) -> None:
    """Check the attributes of a metric's class.

    Args:
        name: registered name of the metric.
        metric: its class.

    Raises:
        TypeError: an attribute is missing or wrong; the message names it.
    """
    named = Expected(f"{name!r}, the name of the entry point", lambda value: value == name)
    check_attributes(metric, {"name": named, **_ATTRIBUTES})


def checked_observations(metric: Metric, yielded: Iterable[Observation]) -> list[Observation]:
    """Check what a metric's ``compute`` yields.

    Numbers of NumPy and tensors without dimensions become Python numbers. An observation whose
    value is None, NaN or infinite becomes a failed one.

    Args:
        metric: the metric.
        yielded: result of its ``compute``.

    Raises:
        TypeError: an observation breaks the contract; the message names the metric.
    """
    if not isinstance(yielded, Iterable) or isinstance(yielded, str | bytes | Tensor | Mapping):
        raise _broken(metric, f"returned {described(yielded)}; yield observations")
    observations = [_checked(metric, observation) for observation in yielded]
    if not observations:
        raise _broken(metric, "yielded no observation; yield a number, or a reason")
    return observations


def _checked(metric: Metric, observation: Observation) -> Observation:
    if not isinstance(observation, Observation):
        raise _broken(
            metric,
            f"yielded {described(observation)}; yield Observation(value, n=images, split=...)",
        )
    changes: dict[str, Any] = {
        "value": _number(metric, "value", observation.value),
        "n": _count(metric, "n", observation.n, 0),
        "time_step": _count(metric, "time_step", observation.time_step, 1),
    }
    for name in _NUMBERS:
        changes[name] = _number(metric, name, getattr(observation, name))
    for name in _TEXTS:
        text = getattr(observation, name)
        if text is not None and (not isinstance(text, str) or not text):
            raise _wrong(metric, name, text, "a string or None")
    _check_choice(metric, "split", observation.split, (None, *SPLITS))
    _check_choice(metric, "status", observation.status, STATUSES)
    return _with_reason(metric, replace(observation, **changes))


def _with_reason(metric: Metric, observation: Observation) -> Observation:
    """Return an observation that has a value or a reason: failed if it has neither."""
    value = observation.value
    if observation.status != OK:
        if value is not None:
            raise _wrong(metric, "value", value, f"None, as the status is {observation.status!r}")
        if observation.reason is None:
            raise _wrong(metric, "reason", None, f"the reason of status {observation.status!r}")
        return observation
    if value is not None and math.isfinite(value):
        return observation
    reason = (
        f"the value is {value}"
        if value is not None
        else f"{metric.name} yielded the value None; yield a number, or a status and a reason"
    )
    return replace(
        observation, value=None, ci_low=None, ci_high=None, status="failed", reason=reason
    )


def _number(metric: Metric, name: str, value: Any) -> float | None:
    number = python_number(value)
    if number is None and value is not None:
        raise _wrong(metric, name, value, "a number")
    return None if number is None else float(number)


def _count(metric: Metric, name: str, value: Any, least: int) -> int | None:
    if value is None:
        return None
    number = python_number(value)
    if not isinstance(number, int) or number < least:
        raise _wrong(metric, name, value, f"a whole number from {least}, or None")
    return number


def _check_choice(metric: Metric, name: str, value: Any, known: tuple[str | None, ...]) -> None:
    if not (value is None or isinstance(value, str)) or value not in known:
        raise _wrong(metric, name, value, f"one of {', '.join(map(repr, known))}")


def _wrong(metric: Metric, name: str, value: Any, expected: str) -> TypeError:
    return _broken(metric, f"yielded {name} = {described(value)}; expected {expected}")


def _broken(metric: Metric, what: str) -> TypeError:
    return TypeError(f"compute of {metric.name} ({type(metric).__name__}) {what}")
