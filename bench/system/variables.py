"""Environment variables of processes that start."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def environment_variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within the context, and restore them afterwards.

    Args:
        values: value of each variable, by name.

    >>> with environment_variables({"EXAMPLE": "1"}):
    ...     os.environ["EXAMPLE"]
    '1'
    >>> "EXAMPLE" in os.environ
    False
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
