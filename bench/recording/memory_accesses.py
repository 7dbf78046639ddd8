"""Reads and writes of memory by layers, as Lemaire et al. (arXiv:2210.13107) count them.

Each layer has memories of its own: for its parameters, for its inputs, and for its outputs or their
membrane potentials. An access reads or writes one word of 32 bits, and costs the more energy, the
larger the memory is. Spikes are events: a first-in-first-out buffer holds the addresses of the
neurons that fired. What computes addresses, and batch normalisation, which hardware folds into the
weights, are left out.

The authors' code is not public. Where the paper leaves a choice, SpikingJelly 2.0's reading is
followed, except that connections at borders are counted exactly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from bench.recording.layer_activity import SpikeTrains

EVENT_BUFFER_WORDS = 1000
"""Size of the buffer of events, as in the paper's experiments."""

Accesses = Iterator[tuple[int, Tensor]]
"""Pairs of a memory's size in words, and the accesses to it per image, float64 ``(N,)``."""


@dataclass(frozen=True)
class SynapticCall:
    """One call of a layer with synapses, for N images.

    Attributes:
        events: non-zero inputs per image, float64 ``(N,)``.
        effective: operations with non-zero input and weight per image, float64 ``(N,)``.
        repetitions: how often the layer is computed per image: the number of time steps.
        inputs: number of inputs of one time step.
        outputs: number of outputs of one time step.
        parameters: number of weights and biases.
        linear: True if all inputs reach all outputs.
        bias: True if the layer has biases.
        event_driven: True if all inputs are in {-1, 0, 1}.
    """

    events: Tensor
    effective: Tensor
    repetitions: float
    inputs: int
    outputs: int
    parameters: int
    linear: bool
    bias: bool
    event_driven: bool

    def accesses(self) -> Accesses:
        """Yield the accesses to the layer's memories.

        For an event, the layer reads its address, and for each of its connections reads a weight,
        and reads and writes a membrane potential. Without events, each operation reads a weight and
        an input, which a linear layer reads only once for all its outputs, and each output is
        written once. Each output reads its bias.
        """
        all_outputs = self._per_image(self.outputs)
        yield self.parameters, self.effective
        if self.bias:
            yield self.parameters, all_outputs
        if self.event_driven:
            yield EVENT_BUFFER_WORDS, self.events
            yield self.outputs, 2 * self.effective
        else:
            yield self.inputs, self._per_image(self.inputs) if self.linear else self.effective
            yield self.outputs, all_outputs

    def _per_image(self, number: int) -> Tensor:
        return torch.full_like(self.effective, number * self.repetitions)


def neuron_accesses(trains: "SpikeTrains", spikes: Tensor) -> Accesses:
    """Yield the accesses of a spiking layer to its memories.

    Each update reads and writes a membrane potential, and each spike writes an address.

    Args:
        trains: spikes of the layer while it computed N images.
        spikes: spikes per image, float64 ``(N,)``.
    """
    yield EVENT_BUFFER_WORDS, spikes
    if trains.membrane:
        for shape, counts in trains.neurons.items():
            updates = shape.numel() * counts.chances / len(spikes)
            yield shape.numel(), torch.full_like(spikes, 2 * updates)
