"""Provenance of results: versions, machine, commit."""

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
    """Return the version of this suite."""
    return version(PACKAGE)


@cache
def git_commit() -> str | None:
    """Return the commit of the suite's code, with the suffix ``-dirty`` if files were changed.

    In a checkout git reports it. In an installed package it is the abbreviated commit in the
    version number, or None for a release, whose version number contains none.
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
    """Return the version of each library that affects the numbers."""
    return {name: _version(name) for name in LIBRARIES}


@cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def environment() -> dict[str, object]:
    """Describe the versions and the machine, for the files of a run directory."""
    import torch

    return {
        "version": suite_version(),
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "libraries": library_versions(),
    }


@cache
def processor() -> str:
    """Return the processor's name, microarchitecture and instruction set.

    Two processors with the same result round in the same way. The name alone is not enough, because
    virtual machines report general ones, such as ``AMD EPYC``, and can hide instructions.
    """
    import torch
    from llvmlite import binding

    capability = torch.backends.cpu.get_cpu_capability()
    return f"{_model_name()}, {binding.get_host_cpu_name()}, {capability}"


def _model_name() -> str:
    """Return the processor's model name on Linux, or its architecture elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
