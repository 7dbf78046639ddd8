"""How much the layers of a model are active, in NeuroBench's terms."""

from collections.abc import Iterable

from bench.metrics.base import Batch, Facts, Metric, Observation
from bench.protocol import Protocol
from bench.spikes import LayerActivity


class _Activity(Metric):
    """Sums up activity by split and layer."""

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._images: dict[str, int] = {}
        self._layers: dict[str, dict[str, LayerActivity]] = {}

    def update(self, batch: Batch) -> None:
        """Add the activity of one batch."""
        self._images[batch.split] = self._images.get(batch.split, 0) + len(batch.images)
        layers = self._layers.setdefault(batch.split, {})
        for name, activity in batch.activity.items():
            total = layers.setdefault(name, LayerActivity(activity.spiking))
            total.add(activity.nonzero, activity.elements)


class FiringRate(_Activity):
    """Spikes per neuron, time step and image, by spiking layer and over all of them.

    ``test`` while the test images are reconstructed, ``generated`` while images are sampled. The
    overall rate weighs each neuron alike, not each layer.
    """

    name = "firing_rate"
    unit = "spikes per neuron and time step"
    higher_is_better = None
    tolerance = 0.05
    needs = frozenset({"spikes", "reconstructions", "generated"})

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """Per split: the overall rate, then each layer's."""
        for split, layers in self._layers.items():
            spiking = {name: layer for name, layer in layers.items() if layer.spiking}
            for name, value in {None: _share(spiking.values()), **_shares(spiking)}.items():
                yield Observation(value, n=self._images[split], split=split, layer=name)


class ActivationSparsity(_Activity):
    """Share of activations that are zero, over layers, time steps and images; 1 is silent.

    NeuroBench's definition (arXiv:2304.04640): spiking layers and activation functions count.
    ``test`` while the test images are reconstructed, ``generated`` while images are sampled.
    """

    name = "activation_sparsity"
    unit = "1"
    higher_is_better = True
    tolerance = 0.05
    needs = frozenset({"reconstructions", "generated"})

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """Per split: one observation over all layers."""
        for split, layers in self._layers.items():
            n = self._images[split]
            if layers:
                yield Observation(1 - _share(layers.values()), n=n, split=split)
            else:
                reason = "the model has no activation layers"
                yield Observation(None, split=split, status="not_applicable", reason=reason)


def _share(layers: Iterable[LayerActivity]) -> float:
    total = LayerActivity(False)
    for layer in layers:
        total.add(layer.nonzero, layer.elements)
    return total.nonzero / total.elements


def _shares(layers: dict[str, LayerActivity]) -> dict[str | None, float]:
    return {name: layer.nonzero / layer.elements for name, layer in layers.items()}
