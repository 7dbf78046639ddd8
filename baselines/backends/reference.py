"""The LIF equations written out in PyTorch, which the other backends are tested against."""

import torch
from torch import Tensor

from bench.backend import NeuronSpec, SpikingBackend, SpikingNeuron


class ReferenceNeuron(SpikingNeuron):
    """The equations of :class:`~bench.backend.NeuronSpec` in a loop over time."""

    def integrate(self, currents: Tensor, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return spikes ``(T, N, ...)`` and the last potential ``(N, ...)``."""
        residual = torch.zeros_like(currents[0]) if membrane is None else membrane
        spikes = []
        for current in currents:
            potential = self.spec.decay * residual + current
            spikes.append(self.spec.fire(potential))
            residual = self.spec.reset(potential, spikes[-1])
        return torch.stack(spikes), residual


class ReferenceBackend(SpikingBackend):
    """Neurons and layers in plain PyTorch."""

    def neuron(self, spec: NeuronSpec) -> ReferenceNeuron:
        """Return a neuron; every specification is supported."""
        return ReferenceNeuron(spec)

    def implementation(self, device: torch.device) -> str:
        """Return the version of PyTorch, whose operators run on any device."""
        return f"PyTorch {torch.__version__}, loop over time"
