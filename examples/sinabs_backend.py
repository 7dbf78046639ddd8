"""A backend with the neuron of another library: the LIF neuron of sinabs."""

from importlib.metadata import version

import torch
from sinabs.layers.functional import lif_forward

from bench.backend import SpikingBackend, SpikingNeuron


class SinabsNeuron(SpikingNeuron):
    """The function behind ``sinabs.layers.LIF``, which takes currents ``(N, T, ...)``.

    It adds currents as they are (``norm_input=False``). The rule at the threshold, the surrogate
    gradient and the reset are arguments of it, for which ``spec`` has functions.
    """

    def integrate(self, currents, membrane):
        """Return spikes ``(T, N, ...)`` and the last potential ``(N, ...)``."""

        def reset(spikes, state, threshold):
            return {**state, "v_mem": self.spec.reset(state["v_mem"], spikes)}

        membrane = torch.zeros_like(currents[0]) if membrane is None else membrane
        spikes, state, _ = lif_forward(
            currents.transpose(0, 1),
            alpha_mem=self.spec.decay,
            alpha_syn=None,
            state={"v_mem": membrane},
            spike_threshold=self.spec.threshold,
            spike_fn=Fire(self.spec),
            reset_fn=reset,
            surrogate_grad_fn=None,
            min_v_mem=None,
            norm_input=False,
        )
        return spikes.transpose(0, 1), state["v_mem"]


class Fire:
    """The form in which sinabs takes a function from potentials to spikes."""

    required_states = ("v_mem",)

    def __init__(self, spec):
        self.spec = spec

    def apply(self, membrane, *_):
        """Return the spikes ``(N, ...)`` of potentials ``(N, ...)``."""
        return self.spec.fire(membrane)


class SinabsBackend(SpikingBackend):
    """Neurons of sinabs, layers in plain PyTorch."""

    def neuron(self, spec):
        """Return a neuron; every specification is supported."""
        return SinabsNeuron(spec)

    def implementation(self, device):
        """Return the version of sinabs, whose PyTorch code runs on any device."""
        return f"sinabs {version('sinabs')}, lif_forward"
