"""SpikingJelly's ``LIFNode`` in multi-step mode."""

from importlib.metadata import version

import torch
from spikingjelly.activation_based.neuron import LIFNode
from torch import Tensor

from baselines.backends.surrogate import RectangularSurrogate
from bench.model import SpikingNeuron, SurrogateWindow


class SpikingJellyLIF(SpikingNeuron):
    """SpikingJelly's multi-step LIFNode with a hard reset that carries gradients.

    It computes the decay as ``u - u / tau``, which is ``decay * u`` up to rounding. So in float32 a
    potential within about 1e-7 of the threshold may fire here and not elsewhere: one spike in
    2.5e7 neuron-steps of ESVAE, as measured.
    """

    def __init__(self, decay: float, threshold: float, surrogate: SurrogateWindow) -> None:
        super().__init__(decay, threshold, surrogate)
        self._node = LIFNode(
            tau=1 / (1 - decay),
            decay_input=False,
            v_threshold=threshold,
            v_reset=0.0,
            surrogate_function=RectangularSurrogate(surrogate, threshold),
            detach_reset=False,
            step_mode="m",
        )

    def integrate(self, currents: Tensor, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
        """Run ``LIFNode`` over the currents; see the base class."""
        self._node.reset()
        if membrane is not None:
            self._node.v = membrane
        spikes = self._node(currents)
        membrane = self._node.v
        self._node.reset()
        return spikes, membrane

    @classmethod
    def implementation(cls, device: torch.device) -> str:
        """SpikingJelly's Torch code: its CUDA and Triton kernels know no window of any centre.

        Raises:
            RuntimeError: SpikingJelly's neurons run on CPU and NVIDIA CUDA only.
        """
        if device.type not in {"cpu", "cuda"}:
            raise RuntimeError(f"SpikingJelly's neurons run on cpu and cuda, not on {device.type}")
        return f"SpikingJelly {version('spikingjelly')}, LIFNode, torch-reference"
