"""snnTorch's ``Leaky`` neuron, stepped over time."""

import snntorch
import torch
from torch import Tensor

from bench.backend import NeuronSpec, SpikingBackend, SpikingNeuron


class SnnTorchNeuron(SpikingNeuron):
    """snnTorch's ``Leaky`` with a hard reset.

    ``reset_delay=False`` resets in the same time step, with gradients. The library's default
    delays the reset by a step and detaches it: the same spikes, and no gradient through the reset.
    """

    def __init__(self, spec: NeuronSpec) -> None:
        super().__init__(spec)
        leaky = snntorch.Leaky(
            beta=spec.decay,
            threshold=spec.threshold,
            spike_grad=spec.fire_excess,
            reset_mechanism="zero",
            reset_delay=not spec.reset_gradient,
        )
        # snnTorch keeps every neuron alive in a class-wide list that only its own reset reads.
        snntorch.SpikingNeuron.instances.remove(leaky)
        # Its constants are buffers. In float64 they are exact for inputs of any precision; outside
        # the module tree they leave a model's state_dict the same on every backend.
        leaky.double()
        self.__dict__["_leaky"] = leaky

    def integrate(self, currents: Tensor, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return spikes ``(T, N, ...)`` and the last potential ``(N, ...)``."""
        leaky = self.__dict__["_leaky"]
        membrane = torch.zeros_like(currents[0]) if membrane is None else membrane
        spikes = []
        for current in currents:
            spike, membrane = leaky(current, membrane)
            spikes.append(spike)
        leaky.mem = leaky.reset = torch.zeros(0)
        if not self.spec.reset_gradient:
            membrane = self.spec.reset(membrane, spikes[-1])
        return torch.stack(spikes), membrane


class SnnTorchBackend(SpikingBackend):
    """Neurons of snnTorch, layers in plain PyTorch."""

    def neuron(self, spec: NeuronSpec) -> SnnTorchNeuron:
        """Return a neuron; every specification is supported."""
        return SnnTorchNeuron(spec)

    def implementation(self, device: torch.device) -> str:
        """Return the version of snnTorch, whose PyTorch code runs on any device."""
        return f"snnTorch {snntorch.__version__}, Leaky stepped over time"
