"""Devices: which one to run on, and how much of its memory was in use."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bench.errors import BenchError
from bench.system.memory import release_freed_memory

NO_PEAK_MEMORY = "this system does not let a process reset its peak memory (Linux's /proc does)"
_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def resolve_device(name: str) -> torch.device:
    """The device called ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        BenchError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in {"cpu", "cuda"}:
        raise BenchError(f"Unknown device {name!r}: expected auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BenchError(
            f"Device {name!r} is not here: PyTorch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices. Use --device auto or cpu."
        )
    return device


def resolve_devices(name: str) -> list[torch.device]:
    """The devices that cells may share: with ``auto`` every GPU, else the one that is named.

    Raises:
        BenchError: no such device here.
    """
    if name == "auto" and torch.cuda.is_available():
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [resolve_device(name)]


def describe_device(device: torch.device) -> str:
    """The device's name for rows: ``cpu``, or ``cuda`` and the card's name."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return device.type


def free_memory(device: torch.device) -> None:
    """Give back what a cell that failed has left, before the next one needs it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    release_freed_memory()


@contextmanager
def full_precision() -> Iterator[None]:
    """Let float32 be float32 on CUDA, where convolutions would otherwise round to TF32."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


class PeakMemory:
    """The largest memory in use since the last :meth:`reset`, without the garbage before the first.

    On CUDA what PyTorch allocated on the device; on a CPU the process's resident set, whose
    high-water mark Linux lets a process reset.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._resettable = True
        gc.collect()
        self.reset()

    def reset(self) -> None:
        """Start a new measurement; what is freed by now does not count."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        release_freed_memory()
        try:
            _CLEAR_REFS.write_text("5")
        except OSError:
            self._resettable = False

    def bytes(self) -> int | None:
        """The peak in bytes; None on a CPU where the system cannot tell."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if not self._resettable:
            return None
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
