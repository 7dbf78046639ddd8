"""How the C library's allocator treats the memory that tensors free."""

import ctypes
import sys

# malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have glibc keep the memory of freed tensors for the next ones, in this process from now on.

    By default it hands blocks above 32 MB back to the kernel when they are freed, and each new one
    costs page faults: about a third of a training step. Returns whether the C library is glibc
    and took the setting; with any other nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(option, _NEVER) == 1 for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
