"""The LIF equations written out in PyTorch: what the other backends are held against."""

import torch
from torch import Tensor

from baselines.backends.surrogate import RectangularSurrogate
from bench.model import SpikingNeuron, SurrogateWindow


class ReferenceLIF(SpikingNeuron):
    """The papers' LIF equations in PyTorch, one loop over time."""

    def __init__(self, decay: float, threshold: float, surrogate: SurrogateWindow) -> None:
        super().__init__(decay, threshold, surrogate)
        self._fire = RectangularSurrogate(surrogate, threshold)

    def integrate(self, currents: Tensor, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
        """``u_t = decay * u_{t-1} * (1 - o_{t-1}) + x_t``; see the base class."""
        residual = torch.zeros_like(currents[0]) if membrane is None else membrane
        spikes = []
        for current in currents:
            potential = self.decay * residual + current
            spike = self._fire(potential - self.threshold)
            residual = potential * (1 - spike)
            spikes.append(spike)
        return torch.stack(spikes), residual

    @classmethod
    def implementation(cls, device: torch.device) -> str:
        """PyTorch operators, on any device."""
        return f"PyTorch {torch.__version__}, loop over time"
