"""The CUDA kernels: in Triton's interpreter, compiled for a GPU that need not be there, and on one.

The interpreter shows that the kernels compute the right thing, but takes what the compiler refuses
and rounds as it is told; so they are compiled as well.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib import NumpyVersion

from bench.backend import NeuronSpec, Rectangle
from bench.registry import backends

triton = pytest.importorskip("triton", reason="PyTorch comes without Triton here")

import fused_cuda_cases  # noqa: E402

from baselines.fused import cuda_kernels  # noqa: E402
from baselines.fused.cpu import lif_constants  # noqa: E402

SCRIPT = Path(fused_cuda_cases.__file__)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
FORWARD = {"decay": 0.25, "threshold": 0.2}
SURROGATE = {"surrogate": lif_constants.RECTANGLE, "centre": -0.2, "half_width": 0.5, "width": 1.0}
BACKWARD = {**FORWARD, **SURROGATE, "reset_gradient": True}
CONSTANTS = {
    "moments": {},
    "lif_forward": FORWARD,
    "lif_backward": {**BACKWARD, "repeated": False},
    "through_norm": {},
    "weighted_sum": {},
}
NORM = ("mean", "scale", "shift")
# A kernel, and the arrays that it gets as None, or constants of its own.
KERNELS = [
    ("moments", ()),
    *(("lif_forward", none) for none in [(), ("membrane",), NORM, ("membrane", *NORM)]),
    *(("lif_backward", none) for none in [(), ("weights",), ("membrane", "weights", *NORM)]),
    ("through_norm", ()),
    ("weighted_sum", ()),
]
INTEGERS = {
    "current_stride",
    "grad_spike_stride",
    "spike_stride",
    "channels",
    "channel_stride",
    "neurons",
    "time_steps",
}


@pytest.mark.full
@pytest.mark.skipif(
    NumpyVersion(triton.__version__) < "3.7.0" and NumpyVersion(np.__version__) >= "2.4.0",
    reason="the interpreter of Triton before 3.7 needs NumPy before 2.4",
)
def test_interpreted_kernels_give_the_reference_spikes_and_gradients():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-300:]}\n{done.stderr}"


@pytest.mark.parametrize(("name", "missing"), KERNELS)
@pytest.mark.parametrize(
    ("number", "threshold"), [("fp32", "0fBE4CCCCD"), ("fp64", "0dBFC999999999999A")]
)
@pytest.mark.parametrize("capability", [80, 90])
def test_compiled_kernels_round_every_operation(
    name, missing, number, threshold, capability, tmp_path, monkeypatch
):
    """With and without an initial membrane, tdBN, and weights of the spikes' gradients."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assembly = compiled_for_gpu(name, missing, number, capability)
    assert "fma." not in assembly
    assert f"mul.rn.{number[0]}{number[2:]}" in assembly
    assert threshold in assembly or "threshold" not in CONSTANTS[name]


def compiled_for_gpu(name, missing, number, capability):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(cuda_kernels, name)
    constants = {**CONSTANTS[name], **dict.fromkeys(missing)}
    signature = {
        argument: "constexpr"
        if argument in constants
        else "i32"
        if argument in INTEGERS
        else f"*{number}"
        for argument in kernel.arg_names
    }
    source = ASTSource(kernel, signature, constants)
    options = cuda_kernels.OPTIONS
    return triton.compile(source, GPUTarget("cuda", capability, 32), options).asm["ptx"]


@pytest.mark.parametrize("reset_gradient", [True, False])
@pytest.mark.parametrize("surrogate", [lif_constants.TRIANGLE, lif_constants.ARCTANGENT])
def test_other_surrogates_are_compiled_apart(surrogate, reset_gradient, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(CONSTANTS["lif_backward"], "surrogate", surrogate)
    monkeypatch.setitem(CONSTANTS["lif_backward"], "reset_gradient", reset_gradient)
    assert "fma." not in compiled_for_gpu("lif_backward", (), "fp32", 90)


def test_without_triton_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(RuntimeError, match="choose another backend, or a platform"):
        backends.load("fused")().implementation(torch.device("cuda"))


def test_implementation_names_triton_and_its_version():
    name = backends.load("fused")().implementation(torch.device("cuda"))
    assert name == f"Triton {triton.__version__}, one kernel over all time steps"


@on_gpu
@pytest.mark.parametrize("case", fused_cuda_cases.CASES, ids=str)
def test_spikes_and_gradients_on_a_gpu_are_the_reference_ones(case):
    fused_cuda_cases.check(case, "cuda")


@pytest.mark.parametrize("repeated", [True, False])
def test_the_gradient_of_repeated_currents_is_compiled_apart(repeated, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(CONSTANTS["lif_backward"], "repeated", repeated)
    assert compiled_for_gpu("lif_backward", (), "fp32", 90)


@on_gpu
@pytest.mark.parametrize("case", fused_cuda_cases.NORM_CASES, ids=str)
def test_normalised_neurons_on_a_gpu_are_the_reference_ones(case):
    fused_cuda_cases.check_norm(case, "cuda")


@on_gpu
def test_weighted_sums_on_a_gpu_are_right():
    fused_cuda_cases.check_weighted_sum("cuda")


@on_gpu
def test_channels_last_currents_stay_so_on_a_gpu():
    fused_cuda_cases.check_layout("cuda")


@on_gpu
def test_a_potential_at_the_threshold_does_not_fire_on_a_gpu():
    fused_cuda_cases.check_threshold("cuda")


@on_gpu
@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("time_steps", [None, 5])
def test_layers_on_a_gpu_are_the_reference_ones(training, time_steps):
    shape = (5, 4, 3, 8, 8) if time_steps is None else (4, 3, 8, 8)
    spec = NeuronSpec(0.25, 0.2, Rectangle(centre=0.0, width=1.0))
    results = []
    for name in ("reference", "fused"):
        backend = backends.load(name)()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            inputs = torch.rand(shape).to("cuda").requires_grad_()
            layer = (
                backend.downsampling(3, 6, spec)
                if time_steps is None
                else backend.direct_coding(3, 6, spec, time_steps)
            )
        layer.norm.running_var.fill_(0.03)
        spikes = layer.to("cuda").train(training)(inputs)
        gradients = torch.autograd.grad(spikes.square().sum(), [inputs, *layer.parameters()])
        results.append([spikes.detach(), *gradients])
    assert 0.03 < results[0][0].mean() < 0.97
    torch.testing.assert_close(results[1], results[0])
