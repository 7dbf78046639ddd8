"""Operations and energy per image, in NeuroBench's terms (arXiv:2304.04640).

Values are means over images: the split ``test`` is the reconstruction of a test image,
``generated`` a sample, and ``train`` the forward passes of a training step, per image of its batch.
There is a value for the whole model and one for each part that the model names, such as ``encoder``
or ``discriminator``, and that runs.
:mod:`bench.recording.synaptic_operations` defines the operations; modules of other kinds, such as
attention, are not counted.

Operations are counted as the suite executes the model. The built-in spiking models run the
encoder's first convolution once per image, because its input is the same at every time step. They
run the read-out's synapses once per image too, on the weighted sum of the input spikes over time.
Hardware that runs both at every time step executes the first convolution T times and the read-out
as ACs, one per spike and connection.
"""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from bench.metrics.metric import Batch, Metric, ModelFacts, Observation
from bench.metrics.reconstruction import ImageMean
from bench.protocol import Protocol
from bench.recording.layer_activity import LayerActivity
from bench.recording.memory_accesses import neuron_accesses
from bench.recording.synaptic_operations import Operations
from bench.store.schema import MAIN_VIEWS, NOT_NEGATIVE, Headline

PICOJOULES_PER_MAC = 4.6
PICOJOULES_PER_AC = 0.9
BYTES_PER_WORD = 4
# Energy of an access by the size of the memory: of caches of 8 KiB, 32 KiB and 1 MiB.
MEMORY_BYTES = (0, 8 * 2**10, 32 * 2**10, 2**20)
PICOJOULES_PER_ACCESS = (0.0, 10.0, 20.0, 100.0)


class _Cost(Metric):
    """Mean cost per image, for the whole model and by part."""

    group = "cost"
    bounds = NOT_NEGATIVE
    higher_is_better = False
    tolerance = 0.05
    needs = frozenset({"activity"})
    needs_any = frozenset({"reconstructions", "generated", "training_step"})
    uncounted: ClassVar[str] = "no linear, convolution or transposed convolution layer runs"

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._means: dict[str, dict[str | None, ImageMean]] = {}
        self._shared: set[tuple[str, str | None]] = set()

    def update(self, batch: Batch) -> None:
        """Add the cost of each image of one batch."""
        costs: dict[str | None, Tensor] = {}
        for activity in batch.activity.values():
            layer_cost = self._cost(activity, len(batch.images))
            if layer_cost is None:
                continue
            cost, by_image = layer_cost
            for part in {None, activity.part}:
                costs[part] = costs[part] + cost if part in costs else cost
                if not by_image:
                    self._shared.add((batch.split, part))
        means = self._means.setdefault(batch.split, {})
        for part, cost in costs.items():
            means.setdefault(part, ImageMean()).update(cost)

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield per split the value of the whole model, then one per part."""
        for split, means in self._means.items():
            if not means:
                reason = self.uncounted
                yield Observation(None, split=split, status="not_applicable", reason=reason)
            for part in sorted(means, key=lambda part: part or ""):
                observation = means[part].observation(split=split, layer=part)
                if (split, part) in self._shared:
                    observation = replace(observation, ci_low=None, ci_high=None)
                yield observation

    @abstractmethod
    def _cost(self, activity: LayerActivity, n: int) -> tuple[Tensor, bool] | None:
        """Return the cost of a layer for each of ``n`` images; None if it has no such cost.

        Returns:
            Float64 ``(n,)``, and True if these are the costs of single images, so that the spread
            over images is known; False if each image has an equal share.
        """


class _SynapticOperations(_Cost):
    """Mean synaptic operations per image."""

    unit = "operations per image"

    def _cost(self, activity: LayerActivity, n: int) -> tuple[Tensor, bool] | None:
        operations = activity.operations
        return None if operations is None else self._of(operations)

    @staticmethod
    @abstractmethod
    def _of(operations: Operations) -> tuple[Tensor, bool]:
        """Return the cost of a layer with synapses, as :meth:`_cost` does."""


class DenseOperations(_SynapticOperations):
    """Dense synaptic operations per image: all connections, whatever the inputs and weights.

    Lower is better. Positions in a convolution's padding are not connections. The module docstring
    says which layers run once per image. There is no interval, because every image costs the same.
    """

    name = "synaptic_operations_dense"
    label = "synaptic operations, dense"
    tolerance = 0.0

    @staticmethod
    def _of(operations: Operations) -> tuple[Tensor, bool]:
        n = len(operations.macs)
        return torch.full((n,), operations.dense / n, dtype=torch.float64), False


class EffectiveMACs(_SynapticOperations):
    """Effective multiply-accumulates (MACs) per image: non-zero input and weight, not spikes.

    Lower is better. The operations of a layer are MACs unless all its inputs in the call are in
    {-1, 0, 1}. The module docstring says which layers run once per image.
    """

    name = "synaptic_operations_effective_macs"
    label = "synaptic operations, effective MACs"

    @staticmethod
    def _of(operations: Operations) -> tuple[Tensor, bool]:
        return operations.macs, operations.by_image


class EffectiveACs(_SynapticOperations):
    """Effective accumulates (ACs) per image: non-zero input and weight, inputs are spikes.

    Lower is better. The operations of a layer are ACs if all its inputs in the call are in
    {-1, 0, 1}. The read-out's synapses run on weighted sums of spikes, so their operations are
    MACs.
    """

    name = "synaptic_operations_effective_acs"
    label = "synaptic operations, effective ACs"

    @staticmethod
    def _of(operations: Operations) -> tuple[Tensor, bool]:
        return operations.acs, operations.by_image


class Energy(_SynapticOperations):
    """Estimated energy per image: 4.6 pJ per effective MAC plus 0.9 pJ per effective AC.

    Lower is better. The factors hold for 32-bit floating point in 45 nm (Horowitz, ISSCC 2014).
    Synaptic operations only: memory access, which often costs more and which
    ``energy_with_memory`` adds, neurons and normalisation are left out.
    """

    name = "energy"
    headline = Headline(90, "energy per sample", "generated", MAIN_VIEWS, "sample energy")
    unit = "pJ per image"

    @staticmethod
    def _of(operations: Operations) -> tuple[Tensor, bool]:
        return _operations_energy(operations), operations.by_image


class EnergyWithMemory(_Cost):
    """Estimated energy per image of synaptic operations and of accesses to memory.

    Lower is better. To ``energy`` it adds the reads and writes of parameters, inputs, outputs,
    membrane potentials and spikes that :mod:`bench.recording.memory_accesses` counts. An access
    costs what a cache of the memory's size costs in 45 nm (Horowitz, ISSCC 2014): 10 pJ for 8 KiB,
    20 pJ for 32 KiB, 100 pJ for 1 MiB and more, and linearly in between. This is the model of
    Lemaire et al. (arXiv:2210.13107) with the energy of floating point for the operations.
    """

    name = "energy_with_memory"
    label = "energy with memory accesses"
    unit = "pJ per image"
    uncounted = "no layer with synapses and no spiking layer runs"

    def _cost(self, activity: LayerActivity, n: int) -> tuple[Tensor, bool] | None:
        if activity.operations is not None:
            accesses = activity.operations.accesses.items()
            energy = _operations_energy(activity.operations) + _access_energy(accesses)
            return energy.cpu(), activity.operations.by_image
        if activity.spikes is None:
            return None
        spikes = activity.spikes_by_image
        by_image = spikes is not None
        if spikes is None:
            spikes = torch.full((n,), activity.nonzero / n, dtype=torch.float64)
        return _access_energy(neuron_accesses(activity.spikes, spikes)).cpu(), by_image


def _operations_energy(operations: Operations) -> Tensor:
    """Return the energy in pJ of the synaptic operations of each image, float64 ``(N,)``."""
    return PICOJOULES_PER_MAC * operations.macs + PICOJOULES_PER_AC * operations.acs


def _access_energy(accesses: Iterable[tuple[int, Tensor]]) -> Tensor:
    """Return the energy in pJ of accesses to memories of so many words, float64 ``(N,)``."""
    return torch.stack(
        [
            number * np.interp(BYTES_PER_WORD * words, MEMORY_BYTES, PICOJOULES_PER_ACCESS)
            for words, number in accesses
        ]
    ).sum(0)


class MembraneUpdates(_Cost):
    """Updates of membrane potentials per image: neurons times the time steps that they run.

    Lower is better. Only spiking neurons count: a sampled latent has no membrane, and the
    read-out's leaky integrator runs as one weighted sum. There is no interval, because every image
    costs the same.
    """

    name = "membrane_updates"
    unit = "updates per image"
    tolerance = 0.0
    needs = frozenset({"spikes"})
    uncounted = "none of the spiking layers that run is a SpikingNeuron"

    def _cost(self, activity: LayerActivity, n: int) -> tuple[Tensor, bool] | None:
        if activity.spikes is None or not activity.spikes.membrane:
            return None
        return torch.full((n,), activity.elements / n, dtype=torch.float64), False
