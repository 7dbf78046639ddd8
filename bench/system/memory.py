"""How the C library's allocator treats the memory that tensors free."""

import ctypes
import os
import sys
from collections.abc import Callable

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
# The environment variable by which PyTorch takes them; processes that are started inherit it.
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"


def keep_freed_memory() -> bool:
    """Have glibc keep the memory of freed tensors for the next ones, in this process from now on.

    By default it hands blocks above 32 MB back to the kernel when they are freed, and each new one
    costs page faults: about a third of a training step. Returns whether the C library is glibc
    and took the setting; with any other nothing changes.

    PyTorch is asked for huge pages as well, which it heeds if it has allocated no tensor of 2 MB
    yet: whoever goes through tensors of tens of megabytes waits less for addresses.
    """
    os.environ.setdefault(HUGE_PAGES, "1")
    mallopt = _of_c_library("mallopt")
    if mallopt is None:
        return False
    return all(mallopt(option, _NEVER) == 1 for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))


def release_freed_memory() -> None:
    """Give the kernel back what is kept of freed tensors now, if the C library is glibc."""
    trim = _of_c_library("malloc_trim")
    if trim is not None:
        trim(0)


def _of_c_library(name: str) -> Callable[..., int] | None:
    """A function of the C library; None if it has none of that name."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), name, None)
