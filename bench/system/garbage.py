"""Exclusion of objects created before the first cell from garbage collection."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def existing_objects_spared() -> Iterator[None]:
    """Exclude the objects that exist at the start of the block from garbage collection in it.

    Imported modules alone hold half a million objects. Scanning them takes about 0.3 s per full
    collection, of which each cell needs at least one.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@cache
def spare_existing_objects() -> None:
    """Exclude the objects that exist now until the process ends; further calls do nothing."""
    gc.freeze()
    # Triton's bindings report objects that are never collected as leaked.
    atexit.register(gc.unfreeze)
