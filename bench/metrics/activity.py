"""Activity of layers and neurons, in NeuroBench's terms (arXiv:2304.04640).

The split ``test`` is activity during the reconstruction of test images, ``generated`` during
sampling.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator

from torch import Tensor

from bench.metrics.metric import Batch, Metric, ModelFacts, Observation
from bench.metrics.reconstruction import ImageMean
from bench.protocol import Protocol
from bench.recording.layer_activity import NeuronCounts, SpikeTrains
from bench.store.schema import MAIN_VIEWS, SHARE, Headline

NO_SPIKES = "none of the model's spiking layers runs"


class _Spikes(Metric):
    """Sums spike trains by split and layer."""

    group = "spikes"
    needs = frozenset({"spikes"})
    needs_any = frozenset({"reconstructions", "generated"})

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._images: dict[str, int] = {}
        self._layers: dict[str, dict[str, SpikeTrains]] = {}

    def update(self, batch: Batch) -> None:
        """Add the spikes of one batch."""
        self._images[batch.split] = self._images.get(batch.split, 0) + len(batch.images)
        layers = self._layers.setdefault(batch.split, {})
        for name, activity in batch.activity.items():
            if activity.spikes is not None:
                layers.setdefault(name, SpikeTrains(activity.spikes.membrane)).add(activity.spikes)

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield per split the overall value, then one per layer, then one per time step."""
        for split, layers in self._layers.items():
            if layers:
                yield from self._observations(split, layers)
            else:
                yield Observation(None, split=split, status="not_applicable", reason=NO_SPIKES)

    @abstractmethod
    def _observations(self, split: str, layers: dict[str, SpikeTrains]) -> Iterator[Observation]:
        """Yield the observations of one split, in which at least one layer ran."""


class FiringRate(_Spikes):
    """Spikes per neuron, time step and image: overall, by spiking layer and by time step.

    In [0, 1], no better direction. The overall rate is the mean over neurons, not over layers; its
    interval comes from the spread over images.
    """

    name = "firing_rate"
    bounds = SHARE
    headline = Headline(80, "firing rate", "test", MAIN_VIEWS)
    unit = "spikes per neuron and time step"
    higher_is_better = None
    tolerance = 0.05
    version = "2"

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._over_images: dict[str, ImageMean | None] = {}

    def update(self, batch: Batch) -> None:
        """Add the spikes of one batch, and the firing rate of each image."""
        super().update(batch)
        mean = self._over_images.setdefault(batch.split, ImageMean())
        rates = _rates_by_image(batch)
        if mean is not None and rates is not None:
            mean.update(rates)
        else:
            self._over_images[batch.split] = None

    def _observations(self, split: str, layers: dict[str, SpikeTrains]) -> Iterator[Observation]:
        n = self._images[split]
        total = SpikeTrains(membrane=False)
        for trains in layers.values():
            total.add(trains)
        rates = self._over_images[split]
        low, high = (rates and rates.interval) or (None, None)
        yield Observation(_rate(total), n=n, split=split, ci_low=low, ci_high=high)
        for name, trains in layers.items():
            yield Observation(_rate(trains), n=n, split=split, layer=name)
        for layer, trains in [(None, total), *layers.items()]:
            for t, rate in enumerate(_rates_by_time_step(trains), start=1):
                yield Observation(rate, n=n, split=split, layer=layer, time_step=t)


class _NeuronShare(_Spikes):
    """Share of neurons with a property, overall and by spiking layer."""

    unit = "1"
    bounds = SHARE
    higher_is_better = None
    tolerance = 0.05

    @staticmethod
    @abstractmethod
    def _which(counts: NeuronCounts) -> Tensor:
        """Return which neurons have the property, boolean, one per neuron."""

    def _observations(self, split: str, layers: dict[str, SpikeTrains]) -> Iterator[Observation]:
        by_layer = {name: self._count(trains) for name, trains in layers.items()}
        overall = tuple(map(sum, zip(*by_layer.values(), strict=True)))
        for layer, (number, neurons) in [(None, overall), *by_layer.items()]:
            yield Observation(number / neurons, n=self._images[split], split=split, layer=layer)

    def _count(self, trains: SpikeTrains) -> tuple[int, int]:
        """Return the number of neurons with the property, and the number of all neurons."""
        number = sum(int(self._which(counts).sum()) for counts in trains.neurons.values())
        return number, sum(len(counts.spikes) for counts in trains.neurons.values())


class DeadNeurons(_NeuronShare):
    """Share of neurons that never fire, over all images and time steps, overall and by layer.

    In [0, 1], no better direction. The share falls as the number of images grows.
    """

    name = "dead_neurons"

    @staticmethod
    def _which(counts: NeuronCounts) -> Tensor:
        return counts.spikes == 0


class SaturatedNeurons(_NeuronShare):
    """Share of neurons that fire at every time step of every image, overall and by layer.

    In [0, 1], no better direction. The share falls as the number of images grows.
    """

    name = "saturated_neurons"

    @staticmethod
    def _which(counts: NeuronCounts) -> Tensor:
        return counts.spikes == counts.chances


class ActivationSparsity(Metric):
    """Share of activations that are zero, over layers, time steps and images.

    In [0, 1], higher is better; 1 means that no neuron fires. As NeuroBench defines it, the outputs
    of spiking layers and of activation functions count.
    """

    name = "activation_sparsity"
    group = "spikes"
    bounds = SHARE
    unit = "1"
    higher_is_better = True
    tolerance = 0.05
    needs = frozenset({"activity"})
    needs_any = frozenset({"reconstructions", "generated"})

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._images: dict[str, int] = {}
        self._nonzero: dict[str, int] = {}
        self._elements: dict[str, int] = {}

    def update(self, batch: Batch) -> None:
        """Add the activations of one batch."""
        layers, split = batch.activity.values(), batch.split
        self._images[split] = self._images.get(split, 0) + len(batch.images)
        self._nonzero[split] = self._nonzero.get(split, 0) + sum(a.nonzero for a in layers)
        self._elements[split] = self._elements.get(split, 0) + sum(a.elements for a in layers)

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation per split, over all layers."""
        for split, elements in self._elements.items():
            if elements:
                value = 1 - self._nonzero[split] / elements
                yield Observation(value, n=self._images[split], split=split)
            else:
                reason = "the model has no activation layers"
                yield Observation(None, split=split, status="not_applicable", reason=reason)


def _rate(trains: SpikeTrains) -> float:
    return (trains.by_time_step.sum() / trains.chances_by_time_step.sum()).item()


def _rates_by_time_step(trains: SpikeTrains) -> list[float]:
    return (trains.by_time_step / trains.chances_by_time_step).tolist()


def _rates_by_image(batch: Batch) -> Tensor | None:
    """Return the firing rate of each image ``(N,)``; None if a layer has no counts by image."""
    spiking = [activity for activity in batch.activity.values() if activity.spikes is not None]
    known = [a.spikes_by_image for a in spiking if a.spikes_by_image is not None]
    if not spiking or len(known) < len(spiking):
        return None
    chances = sum(activity.elements for activity in spiking) / len(batch.images)
    return sum(known[1:], known[0]) / chances
