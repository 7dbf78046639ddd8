"""What an image costs in operations, in NeuroBench's terms (arXiv:2304.04640).

``test`` for the reconstruction of a test image, ``generated`` for a sample: means over images, for
the whole model and for each part that it names (``encoder``, ``latent_sampler``, ``decoder``) and
that runs. ``bench.recording.synaptic_operations`` defines the operations; modules of other kinds,
such as attention, are not counted.

They are counted as the model is executed here. The built-in spiking models run the encoder's first
convolution once an image, since its input is the same at every time step, and the read-out's
synapses once, on the weighted sum of their input spikes over time. Hardware that runs both at every
time step does the first T times, and the second as ACs, one for each spike and connection.
"""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from bench.metrics.metric import Batch, Facts, Metric, Observation
from bench.metrics.reconstruction import ImageMean
from bench.protocol import Protocol
from bench.recording.activity import LayerActivity
from bench.recording.synaptic_operations import Operations
from bench.store.schema import MAIN_VIEWS, Headline

PICOJOULES_PER_MAC = 4.6
PICOJOULES_PER_AC = 0.9


class _Cost(Metric):
    """Mean cost of an image, for the whole model and by part."""

    higher_is_better = False
    tolerance = 0.05
    needs_any = frozenset({"reconstructions", "generated"})
    uncounted: ClassVar[str] = "no linear, convolution or transposed convolution layer runs"

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._means: dict[str, dict[str | None, ImageMean]] = {}
        self._shared: set[tuple[str, str | None]] = set()

    def update(self, batch: Batch) -> None:
        """Add what each image of one batch cost."""
        costs: dict[str | None, Tensor] = {}
        for activity in batch.activity.values():
            found = self._cost(activity, len(batch.images))
            if found is None:
                continue
            cost, by_image = found
            for part in {None, activity.part}:
                costs[part] = costs[part] + cost if part in costs else cost
                if not by_image:
                    self._shared.add((batch.split, part))
        means = self._means.setdefault(batch.split, {})
        for part, cost in costs.items():
            means.setdefault(part, ImageMean()).update(cost)

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """Per split: the whole model, then its parts."""
        for split, means in self._means.items():
            if not means:
                reason = self.uncounted
                yield Observation(None, split=split, status="not_applicable", reason=reason)
            for part in sorted(means, key=lambda part: part or ""):
                found = means[part].observation(split=split, layer=part)
                if (split, part) in self._shared:
                    found = replace(found, ci_low=None, ci_high=None)
                yield found

    @abstractmethod
    def _cost(self, activity: LayerActivity, n: int) -> tuple[Tensor, bool] | None:
        """What a layer cost each of ``n`` images, ``(n,)`` float64; None if it has no such cost.

        And whether that is each image's own cost, so that the spread over images is known.
        """


class _SynapticOperations(_Cost):
    """Mean synaptic operations of an image."""

    unit = "operations per image"

    def _cost(self, activity: LayerActivity, n: int) -> tuple[Tensor, bool] | None:
        operations = activity.operations
        return None if operations is None else self._of(operations)

    @staticmethod
    @abstractmethod
    def _of(operations: Operations) -> tuple[Tensor, bool]:
        """As :meth:`_cost`, of a layer with synapses."""


class DenseOperations(_SynapticOperations):
    """Synaptic operations an image if no input and no weight were zero, borders left out.

    Counted as the model is executed here: direct coding's first convolution and the read-out's
    synapses run once an image, not once a time step. It has no interval: every image costs this.
    """

    name = "synaptic_operations_dense"
    tolerance = 0.0

    @staticmethod
    def _of(operations: Operations) -> tuple[Tensor, bool]:
        n = len(operations.macs)
        return torch.full((n,), operations.dense / n, dtype=torch.float64), False


class EffectiveMACs(_SynapticOperations):
    """Synaptic operations an image with non-zero input and weight whose inputs are not spikes.

    A layer's operations are MACs unless all its inputs in the call are in {-1, 0, 1}. Counted as
    the model is executed here: direct coding's first convolution and the read-out's synapses run
    once an image, not once a time step.
    """

    name = "synaptic_operations_effective_macs"

    @staticmethod
    def _of(operations: Operations) -> tuple[Tensor, bool]:
        return operations.macs, operations.by_image


class EffectiveACs(_SynapticOperations):
    """Synaptic operations an image with non-zero input and weight whose inputs are spikes.

    A layer's operations are ACs where all its inputs in the call are in {-1, 0, 1}. Counted as the
    model is executed here: the read-out's synapses run once an image, on weighted sums of spikes,
    and so are MACs.
    """

    name = "synaptic_operations_effective_acs"

    @staticmethod
    def _of(operations: Operations) -> tuple[Tensor, bool]:
        return operations.acs, operations.by_image


class Energy(_SynapticOperations):
    """Estimated energy of an image's synaptic operations: 4.6 pJ a MAC and 0.9 pJ an AC.

    For 32-bit floating point in 45 nm (Horowitz, ISSCC 2014), on the effective operations. Synaptic
    operations only: memory access, which often costs more, neurons and normalisation are left out.
    Counted as the model is executed here, see ``synaptic_operations_effective_macs``.
    """

    name = "energy"
    headline = Headline(90, "energy per sample, pJ", "generated", MAIN_VIEWS, "sample pJ")
    unit = "pJ per image"

    @staticmethod
    def _of(operations: Operations) -> tuple[Tensor, bool]:
        energy = PICOJOULES_PER_MAC * operations.macs + PICOJOULES_PER_AC * operations.acs
        return energy, operations.by_image


class MembraneUpdates(_Cost):
    """Updates of membrane potentials an image: neurons times the time steps they run.

    Of the spiking neurons alone: draws of a latent have no membrane, and the read-out's leaky
    integrator is run as one weighted sum. It has no interval: every image costs this.
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
