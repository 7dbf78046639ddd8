"""SpikingJelly's ``LIFNode`` in multi-step mode."""

import math
from importlib.metadata import version

import torch
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor

from bench.backend import NeuronSpec, SpikingBackend, SpikingNeuron


class SpikingJellyNeuron(SpikingNeuron):
    """SpikingJelly's multi-step ``LIFNode`` with a hard reset.

    It computes the decay as ``u - u / tau``, which equals ``decay * u`` up to rounding. In float32
    a potential within about 1e-7 of the threshold can therefore fire here and not elsewhere: one
    spike in 2.5e7 neuron-steps of ESVAE, as measured. Without leak ``tau`` is infinite, and
    ``u - u / tau`` is ``u``, exactly.
    """

    def __init__(self, spec: NeuronSpec) -> None:
        super().__init__(spec)
        self._node = LIFNode(
            tau=1 / (1 - spec.decay) if spec.decay < 1 else math.inf,
            decay_input=False,
            v_threshold=spec.threshold,
            v_reset=0.0,
            surrogate_function=spec.fire_excess,
            detach_reset=not spec.reset_gradient,
            step_mode="m",
        )

    def integrate(self, currents: Tensor, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return spikes ``(T, N, ...)`` and the last potential ``(N, ...)``."""
        self._node.reset()
        if membrane is not None:
            self._node.v = membrane
        spikes = self._node(currents)
        membrane = self._node.v
        self._node.reset()
        return spikes, membrane


class SpikingJellyBackend(SpikingBackend):
    """Neurons of SpikingJelly, layers in plain PyTorch."""

    def neuron(self, spec: NeuronSpec) -> SpikingJellyNeuron:
        """Return a neuron; every specification is supported."""
        return SpikingJellyNeuron(spec)

    def implementation(self, device: torch.device) -> str:
        """Return the version of SpikingJelly and the code that it runs.

        That is its PyTorch code: its CUDA and Triton kernels do not support a custom surrogate.

        Raises:
            RuntimeError: the device is neither CPU nor NVIDIA CUDA.
        """
        if device.type not in {"cpu", "cuda"}:
            raise RuntimeError(f"SpikingJelly's neurons run on cpu and cuda, not on {device.type}")
        return f"SpikingJelly {version('spikingjelly')}, LIFNode, torch-reference"
