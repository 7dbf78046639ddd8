"""Freed memory that the process keeps, seen by its page faults, and huge pages."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bench.system.memory import HUGE_PAGES

FAULTS = """
import resource
import torch
from bench.system.memory import keep_freed_memory
if {kept}:
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(100 * 2**18)
before = faults()
for _ in range(5):
    torch.ones(100 * 2**18)
print(faults() - before)
"""


def output_of(code):
    """Of a process that inherits nothing of what other tests have set."""
    environment = {name: value for name, value in os.environ.items() if name != HUGE_PAGES}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    ).stdout


def page_faults(kept):
    return int(output_of(FAULTS.format(kept=kept)))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not its C library")
def test_large_tensors_soon_cost_no_more_page_faults():
    assert page_faults(kept=False) > 10_000
    assert page_faults(kept=True) < 1_000


RELEASED = """
import torch
from bench.system.memory import keep_freed_memory
from bench.system.devices import PeakMemoryMeter
assert keep_freed_memory()
memory = PeakMemoryMeter(torch.device("cpu"))
before = memory.bytes()
torch.ones(300 * 2**18)
during = memory.bytes()
memory.reset()
print(during - before, memory.bytes() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not its C library")
def test_what_is_kept_is_not_counted_as_the_memory_of_what_comes_next():
    during, after = map(int, output_of(RELEASED).split())
    assert during > 250 * 2**20
    assert after < 50 * 2**20


HUGE = """
import re
import torch
from bench.system.memory import keep_freed_memory
assert keep_freed_memory()
tensor = torch.ones(300 * 2**18)
with open("/proc/self/smaps_rollup") as rollup:
    print(re.search(r"AnonHugePages: *([0-9]+)", rollup.read())[1])
"""
ON_REQUEST = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    not ON_REQUEST.exists() or "[never]" in ON_REQUEST.read_text(), reason="no huge pages here"
)
def test_large_tensors_lie_in_huge_pages():
    assert int(output_of(HUGE)) > 200 * 2**10
