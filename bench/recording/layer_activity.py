"""Activity of one layer of a model while it computed a batch of images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.recording.synaptic_operations import Operations


@dataclass(frozen=True)
class NeuronCounts:
    """Number of spikes of each neuron of a layer.

    Attributes:
        spikes: spikes per neuron, float64 ``(units,)``.
        chances: largest possible number of spikes per neuron: time steps times images.
    """

    spikes: Tensor
    chances: int


@dataclass
class SpikeTrains:
    """Spikes of one layer, summed over images.

    Attributes:
        membrane: True if the layer is a :class:`~bench.backend.SpikingNeuron`, which updates a
            membrane potential per neuron and time step.
        by_time_step: spikes at each time step, float64 ``(T,)``, on the CPU.
        chances_by_time_step: largest possible number of spikes at each time step, float64 ``(T,)``,
            on the CPU.
        neurons: spikes per neuron, for each output shape ``(...)`` of the layer, without T and N.
            There is one shape, unless the model uses the layer in several places. Places of the
            same shape are counted together.
    """

    membrane: bool
    by_time_step: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    chances_by_time_step: Tensor = field(
        default_factory=lambda: torch.zeros(0, dtype=torch.float64)
    )
    neurons: dict[torch.Size, NeuronCounts] = field(default_factory=dict)

    def add(self, other: "SpikeTrains") -> None:
        """Add the spikes of a further call of the same layer."""
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
    """Activity of one layer while a batch of N images was computed.

    Attributes:
        part: part of the model that the layer belongs to (see ``GenerativeModel.parts``), or None.
        nonzero: number of activations that are not 0.
        elements: number of activations over images, time steps and units; 0 for a layer whose
            output is not an activation.
        spikes: spikes of the layer; None if it is not a spiking layer.
        spikes_by_image: number of spikes per image, float64 ``(N,)``; None if the layer was called
            with a batch of another size.
        operations: synaptic operations of the layer; None if it has no synapses.
    """

    part: str | None = None
    nonzero: int = 0
    elements: int = 0
    spikes: SpikeTrains | None = None
    spikes_by_image: Tensor | None = None
    operations: Operations | None = None


class NotRecorded(Mapping[str, LayerActivity]):
    """The activity of a batch for which none was recorded; reading it is an error."""

    def __getitem__(self, name: str) -> LayerActivity:
        """Raise LookupError."""
        raise _not_recorded()

    def __iter__(self) -> Iterator[str]:
        """Raise LookupError."""
        raise _not_recorded()

    def __len__(self) -> int:
        """Raise LookupError."""
        raise _not_recorded()


def _not_recorded() -> LookupError:
    return LookupError(
        "the activity of layers is recorded for metrics that need it only: list 'activity', or "
        "'spikes' for spiking layers alone, in needs"
    )


def _padded_sum(a: Tensor, b: Tensor) -> Tensor:
    """Add two vectors ``(A,)`` and ``(B,)``, the shorter one padded with zeros.

    >>> _padded_sum(torch.ones(1), torch.ones(3))
    tensor([2., 1., 1.])
    """
    length = max(len(a), len(b))
    return F.pad(a, (0, length - len(a))) + F.pad(b, (0, length - len(b)))
