"""Selection of devices, and measurement of their peak memory."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bench.errors import BenchError
from bench.system.memory import release_freed_memory

NO_PEAK_MEMORY = "this system does not let a process reset its peak memory (Linux's /proc does)"
TF32_CAPABILITY = (8, 0)
_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def resolve_device(name: str) -> torch.device:
    """Return the device called ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    ``auto`` is the first GPU, or the CPU if there is no GPU.

    Raises:
        BenchError: if the name is invalid or the device is not available.

    >>> resolve_device("cpu")
    device(type='cpu')
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
        found = why_no_gpu() or f"PyTorch sees {torch.cuda.device_count()} CUDA devices"
        raise BenchError(f"Device {name!r} is not available: {found}. Use --device auto or cpu.")
    return device


def why_no_gpu() -> str | None:
    """Return why PyTorch finds no GPU, such as a driver that is too old; None if it finds one."""
    if torch.cuda.is_available():
        return None
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return f"PyTorch {torch.__version__} says: {' '.join(str(error).split()).rstrip('.')}"
    return f"PyTorch {torch.__version__} sees no CUDA device"


def resolve_devices(name: str) -> list[torch.device]:
    """Return the devices to distribute cells over: every GPU for ``auto``, else the named device.

    Raises:
        BenchError: if the name is invalid or the device is not available.

    >>> resolve_devices("cpu")
    [device(type='cpu')]
    """
    if name == "auto" and torch.cuda.is_available():
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [resolve_device(name)]


def describe_device(device: torch.device) -> str:
    """Return the device's name for rows: ``cpu``, or ``cuda`` followed by the GPU's name.

    >>> describe_device(torch.device("cpu"))
    'cpu'
    """
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return device.type


def free_memory(device: torch.device) -> None:
    """Release the memory that a failed cell has left, so that the next cell can use it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    release_freed_memory()


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let CUDA compute float32 convolutions and matrix products in TF32 in the context, or not.

    TF32 rounds their inputs to 10 bits of mantissa and adds up in float32.

    Args:
        allowed: True to use TF32 on GPUs that have it.
    """
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = allowed
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before


@contextmanager
def fastest_convolutions() -> Iterator[None]:
    """Let cuDNN try its algorithms on each new shape in the context, and keep the fastest.

    Which one that is can differ from run to run, and with it the rounding.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def lacking_precision(precision: str, device: torch.device) -> str | None:
    """Return why a device cannot compute in a precision of protocols; None if it can."""
    cuda = device.type == "cuda"
    capable = cuda and torch.cuda.get_device_capability(device) >= TF32_CAPABILITY
    if precision == "tf32" and not capable:
        return (
            f"precision tf32 needs a CUDA GPU of compute capability 8.0 or more, and the device is "
            f"{describe_device(device)}: use precision=float32"
        )
    if precision == "bfloat16" and cuda and not torch.cuda.is_bf16_supported():
        return f"{describe_device(device)} has no bfloat16: use precision=float32"
    return None


class PeakMemoryMeter:
    """Meter of the largest memory in use since the last :meth:`reset`.

    On CUDA this is the memory that PyTorch allocated on the device; on a CPU it is the resident set
    of the process, whose high-water mark can be reset on Linux. Garbage is collected once, when the
    measurement is created.

    Attributes:
        device: the device whose memory is measured.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._resettable = True
        gc.collect()
        self.reset()

    def reset(self) -> None:
        """Start a new measurement, in which memory freed so far does not count."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        release_freed_memory()
        try:
            _CLEAR_REFS.write_text("5")
        except OSError:
            self._resettable = False

    def bytes(self) -> int | None:
        """Return the peak in bytes, or None on a CPU whose system cannot measure it."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if not self._resettable:
            return None
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
