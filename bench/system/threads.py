"""CPU threads: how many a process can use, and how many a cell computes with."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import joblib
import torch
from threadpoolctl import threadpool_limits

from bench.system.variables import environment_variables

# Libraries that are loaded later read their number of threads from these.
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def usable_cpus() -> int:
    """Return the number of CPUs that this process can use, at least 1.

    The affinity of the process and the CPU quota of its container are taken into account.
    """
    return joblib.cpu_count()


def cells_at_a_time(devices: Sequence[torch.device], threads: int) -> int:
    """Return how many cells can run at a time: one per GPU, or as many as the CPUs have room for.

    Args:
        devices: devices that cells are distributed over, at least one.
        threads: CPU threads per cell, at least 1.

    >>> cells_at_a_time([torch.device("cuda", 0), torch.device("cuda", 1)], threads=4)
    2
    """
    if devices[0].type != "cpu":
        return len(devices)
    return max(1, usable_cpus() // threads)


def system_load() -> float | None:
    """Return the mean number of processes that were running or waiting in the last minute.

    None on a system that does not count them.
    """
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Compute with ``count`` threads within the context: PyTorch, BLAS and OpenMP.

    The number of threads decides in which order a parallel sum is added, so it changes results in
    their last digits, and training amplifies that.

    Args:
        count: number of threads, at least 1.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with started_with_threads(count), threadpool_limits(count):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def started_with_threads(count: int) -> Iterator[None]:
    """Let processes that start, and libraries that are loaded, within the context use ``count``.

    Args:
        count: number of threads, at least 1.
    """
    with environment_variables(dict.fromkeys(_VARIABLES, str(count))):
        yield
