"""Checks of the attributes that the class of a plug-in has to set."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

_MISSING = object()


@dataclass(frozen=True)
class Expected:
    """The values that an attribute can have.

    Attributes:
        words: the values in words, for messages.
        holds: function that returns True for such a value.
    """

    words: str
    holds: Callable[[Any], bool]


TEXT = Expected("a string that is not empty", lambda value: isinstance(value, str) and value != "")
FLAG = Expected("True or False", lambda value: isinstance(value, bool))
FLAG_OR_NONE = Expected("True, False or None", lambda value: isinstance(value, bool | None))
NAMES = Expected("a tuple of strings", lambda value: _are_names(value))


def is_number(value: object) -> bool:
    """Return True for a finite Python number that is no boolean.

    >>> is_number(0.05), is_number(True), is_number("5 %")
    (True, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def some_of(known: Collection[str]) -> Expected:
    """Return the expectation of a set of some of the known names.

    >>> some_of(["encode", "decode"]).holds({"encode"})
    True
    >>> some_of(["encode", "decode"]).holds("encode")
    False
    """
    words = f"a frozenset of some of {', '.join(sorted(known))}"
    return Expected(words, lambda value: _are_names(value) and set(value) <= set(known))


def check_attributes(checked: object, expected: Mapping[str, Expected]) -> None:
    """Check the attributes of a class or of its instance.

    Args:
        checked: the class or instance.
        expected: values that the attributes can have, by attribute name.

    Raises:
        TypeError: an attribute is missing or has another value; the message names it.
    """
    owner = checked.__name__ if isinstance(checked, type) else type(checked).__name__
    for name, values in expected.items():
        value = getattr(checked, name, _MISSING)
        if value is _MISSING:
            raise TypeError(f"{owner} lacks the attribute {name}; set it to {values.words}")
        if not values.holds(value):
            raise TypeError(
                f"the attribute {name} of {owner} is {value!r}; set it to {values.words}"
            )


def _are_names(value: object) -> bool:
    if not isinstance(value, Collection) or isinstance(value, str):
        return False
    return all(isinstance(name, str) for name in value)
