"""snnTorch's ``Leaky`` neuron, stepped over time."""

import snntorch
import torch
from torch import Tensor

from baselines.backends.surrogate import RectangularSurrogate
from bench.model import SpikingNeuron, SurrogateWindow


class SnnTorchLIF(SpikingNeuron):
    """snnTorch's Leaky with a hard reset that carries gradients.

    ``reset_delay=False`` matters: the default delays the reset by a step and detaches it.
    """

    def __init__(self, decay: float, threshold: float, surrogate: SurrogateWindow) -> None:
        super().__init__(decay, threshold, surrogate)
        leaky = snntorch.Leaky(
            beta=decay,
            threshold=threshold,
            spike_grad=RectangularSurrogate(surrogate, threshold),
            reset_mechanism="zero",
            reset_delay=False,
        )
        # snnTorch keeps every neuron alive in a class-wide list that only its own reset reads.
        snntorch.SpikingNeuron.instances.remove(leaky)
        # Its constants are buffers. In float64 they are exact for inputs of any precision; out of
        # the module tree they leave the weights of a model the same on every backend.
        leaky.double()
        self.__dict__["_leaky"] = leaky

    def integrate(self, currents: Tensor, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
        """Step ``Leaky`` over the currents; see the base class."""
        leaky = self.__dict__["_leaky"]
        membrane = torch.zeros_like(currents[0]) if membrane is None else membrane
        spikes = []
        for current in currents:
            spike, membrane = leaky(current, membrane)
            spikes.append(spike)
        leaky.mem = leaky.reset = torch.zeros(0)
        return torch.stack(spikes), membrane

    @classmethod
    def implementation(cls, device: torch.device) -> str:
        """snnTorch's own PyTorch code, on any device."""
        return f"snnTorch {snntorch.__version__}, Leaky stepped over time"
