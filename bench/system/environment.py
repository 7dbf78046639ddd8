"""What produced a number: versions, machine, commit."""

import os
import platform
import re
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = "spikegen-bench"
LIBRARIES = (
    "torch",
    "torchvision",
    "snntorch",
    "spikingjelly",
    "numba",
    "torch-fidelity",
    "clean-fid",
    "scikit-learn",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
)


@cache
def suite_version() -> str:
    """Version of this suite."""
    return version(PACKAGE)


@cache
def git_commit() -> str | None:
    """The commit that the suite's code comes from; ``-dirty`` if it was changed since.

    In a checkout it is asked of git; in an installed package it is what the version was built
    from, abbreviated; None for a release without one.
    """
    here = Path(__file__).parent
    if _git(here, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        built_from = re.search(r"\+(?:.*\.)?g([0-9a-f]+)", suite_version())
        return built_from.group(1) if built_from else None
    commit = _git(here, "rev-parse", "HEAD")
    dirty = _git(here.parent, "status", "--porcelain", "--", "bench", "baselines")
    return f"{commit}-dirty" if dirty else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        ran = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return ran.stdout.strip() if ran.returncode == 0 else None


def library_versions() -> dict[str, str]:
    """Version of each library that numbers depend on."""
    return {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def environment() -> dict[str, object]:
    """Versions and machine, as they are written beside results."""
    import torch

    return {
        "version": suite_version(),
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "libraries": library_versions(),
    }


def _processor() -> str:
    """The processor's model name where Linux tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
