"""What one layer of a model did while a batch of images was computed."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.recording.synaptic_operations import Operations


@dataclass(frozen=True)
class NeuronCounts:
    """Spikes of each neuron of a layer.

    Attributes:
        spikes: by neuron, flat, float64.
        chances: how many spikes each could have fired: time steps times images.
    """

    spikes: Tensor
    chances: int


@dataclass
class SpikeTrains:
    """Spikes of one layer, summed over images.

    Attributes:
        membrane: whether the layer is a :class:`~bench.backend.SpikingNeuron`, which updates a
            membrane potential for each spike that it could fire.
        by_time_step: spikes at each time step, float64 ``(T,)``, on the CPU.
        chances_by_time_step: how many there could have been, alike.
        neurons: spikes by neuron, for each shape of the layer. There is one, unless the layer is
            used in several places; of these, places of the same shape are counted as one.
    """

    membrane: bool
    by_time_step: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    chances_by_time_step: Tensor = field(
        default_factory=lambda: torch.zeros(0, dtype=torch.float64)
    )
    neurons: dict[torch.Size, NeuronCounts] = field(default_factory=dict)

    def add(self, other: "SpikeTrains") -> None:
        """Count further spikes of the same layer."""
        self.by_time_step = _padded_sum(self.by_time_step, other.by_time_step)
        self.chances_by_time_step = _padded_sum(
            self.chances_by_time_step, other.chances_by_time_step
        )
        for shape, counts in other.neurons.items():
            spikes, chances = counts.spikes, counts.chances
            if shape in self.neurons:
                spikes = self.neurons[shape].spikes + spikes
                chances += self.neurons[shape].chances
            self.neurons[shape] = NeuronCounts(spikes, chances)


@dataclass
class LayerActivity:
    """What one layer did while a batch of N images was made.

    Attributes:
        part: the part of the model that it belongs to (``GenerativeModel.parts``), None for none.
        nonzero: number of activations that are not 0.
        elements: number of activations, over images, time steps and units; 0 of a layer whose
            output does not count as activations.
        spikes: its spikes; None unless it is a spiking layer.
        spikes_by_image: how many each image had, float64 ``(N,)``; None if a call showed other
            than the N images.
        operations: its synaptic operations; None if it has no synapses.
    """

    part: str | None = None
    nonzero: int = 0
    elements: int = 0
    spikes: SpikeTrains | None = None
    spikes_by_image: Tensor | None = None
    operations: Operations | None = None


def _padded_sum(a: Tensor, b: Tensor) -> Tensor:
    """The sum of two vectors of any lengths, the shorter one filled up with 0."""
    length = max(len(a), len(b))
    return F.pad(a, (0, length - len(a))) + F.pad(b, (0, length - len(b)))
