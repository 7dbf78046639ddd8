"""Memory as kernels take it: where it begins, and that it serves again."""

import platform
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baselines.fused.cpu.aligned_memory import empty_aligned, padded
from baselines.fused.cpu.simd import CACHE_LINE

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.uint8]

# What stays takes the place of nothing that went: in the C library's memory it lies beside it.
REPEATED = """
import torch
from bench.system.memory import keep_freed_memory
from bench.system.devices import PeakMemoryMeter
from baselines.fused.cpu.aligned_memory import empty_aligned
assert keep_freed_memory()
memory = PeakMemoryMeter(torch.device("cpu"))
before = memory.bytes()
stays = []
for _ in range(8):
    large = empty_aligned((2**24,), torch.float32).zero_()
    stays.append(torch.zeros(2**17))
    del large
print(memory.bytes() - before)
"""


@given(size=st.lists(st.integers(1, 20), min_size=1, max_size=4), dtype=st.sampled_from(DTYPES))
def test_aligned_memory_begins_where_the_widest_stores_may(size, dtype):
    tensor = empty_aligned(size, dtype)
    assert tensor.data_ptr() % CACHE_LINE == 0
    assert tensor.is_contiguous()
    assert tensor.shape == torch.Size(size)
    assert tensor.dtype == dtype
    assert torch.equal(tensor.fill_(1), torch.ones(size, dtype=dtype))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not its C library")
def test_memory_of_a_large_tensor_serves_the_next_one():
    run = subprocess.run(
        [sys.executable, "-c", REPEATED], check=True, capture_output=True, text=True
    )
    assert 64 * 2**20 < int(run.stdout) < 96 * 2**20


@given(
    size=st.tuples(*[st.integers(1, 9)] * 3),
    multiples=st.lists(st.sampled_from([1, 4, 8]), min_size=1, max_size=2),
)
def test_what_is_padded_ends_in_zeros(size, multiples):
    tensor = torch.randn(size).transpose(0, 2)
    found = padded(tensor, *multiples)
    assert found.is_contiguous()
    axes = range(3 - len(multiples), 3)
    for axis, multiple in zip(axes, multiples, strict=True):
        assert found.shape[axis] == -(-tensor.shape[axis] // multiple) * multiple
    within = tuple(slice(length) for length in tensor.shape)
    assert torch.equal(found[within], tensor)
    assert found.count_nonzero() == tensor.count_nonzero()
