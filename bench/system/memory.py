"""Memory of a process: the C library's allocator, and the garbage collector."""

import atexit
import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
# Environment variable that makes PyTorch use huge pages; child processes inherit it.
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"


def keep_freed_memory() -> bool:
    """Make glibc reuse the memory of freed tensors, for the rest of this process.

    By default, glibc returns blocks above 32 MB to the kernel when they are freed. Each new block
    then costs page faults, about a third of a training step.

    Also ask PyTorch for huge pages, which makes access to large tensors faster. PyTorch reads the
    setting when it allocates its first tensor of 2 MB or more.

    Returns:
        True if glibc accepted the settings; False with any other C library, where only the request
        for huge pages has been made.
    """
    os.environ.setdefault(HUGE_PAGES, "1")
    mallopt = _c_function("mallopt")
    if mallopt is None:
        return False
    return all(mallopt(option, _NEVER) == 1 for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))


def release_freed_memory() -> None:
    """Return the memory that glibc keeps of freed tensors to the kernel; elsewhere do nothing."""
    trim = _c_function("malloc_trim")
    if trim is not None:
        trim(0)


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


def _c_function(name: str) -> Callable[..., int] | None:
    """Return a function of the C library, or None if there is none of that name."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), name, None)
