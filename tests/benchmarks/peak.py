"""Peak memory of the current process."""

from pathlib import Path

STATUS = Path("/proc/self/status")


def own_peak():
    """Return the peak memory of this process in MiB, since it began to run its program.

    ``getrusage`` would include the memory of the process that started this one.
    """
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**10
