"""Garbage collections that pass over what was there before the first cell."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def existing_objects_spared() -> Iterator[None]:
    """Keep what exists at the start out of garbage collections until the end.

    Imported modules alone are half a million objects: each full collection, of which a cell needs
    one or more, would take about 0.3 s to look at them.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@cache
def spare_existing_objects() -> None:
    """The same until this process ends, for one that only runs cells; once is enough."""
    gc.freeze()
    # What is never collected, Triton's bindings report as leaked.
    atexit.register(gc.unfreeze)
