"""Peak memory of a process of its own."""

from pathlib import Path

STATUS = Path("/proc/self/status")


def own_peak():
    """MiB of this process at its peak, since it began to run its program.

    What ``getrusage`` gives counts from the memory of the process that started this one.
    """
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**10
