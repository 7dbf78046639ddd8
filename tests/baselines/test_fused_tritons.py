"""The CUDA kernels compile with the Triton of each PyTorch that the suite supports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

# The Tritons that PyTorch 2.8 to 2.12 require, on x86 Linux; later ones are installed with it.
TRITONS = ["3.4.0", "3.5.0", "3.5.1", "3.6.0", "3.7.0"]
KERNELS = Path(__file__).with_name("test_fused_cuda.py")


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="PyTorch without CUDA")
@pytest.mark.parametrize("version", TRITONS)
def test_kernels_compile_for_two_gpus(version, tmp_path):
    """Every kernel, with and without a membrane, in float32 and float64."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--target", tmp_path, f"triton=={version}"], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    found = "import triton; print(triton.__version__)"
    ran = subprocess.run([sys.executable, "-c", found], env=environment, capture_output=True)
    assert ran.stdout.decode().strip() == version
    pytest_here = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", KERNELS]
    ran = subprocess.run(
        [*pytest_here, "-k", "compiled or implementation"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    assert "47 passed" in ran.stdout
