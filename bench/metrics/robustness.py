"""Effect of noise on the latent or on the input on reconstructions."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator

from torch import Tensor

from bench.metrics.metric import Batch, Metric, ModelFacts, Observation
from bench.metrics.noise import INPUT_NOISE, LATENT_NOISE, LATENT_SHUFFLE, NO_NOISE
from bench.metrics.reconstruction import ImageMean, squared_errors
from bench.protocol import Protocol
from bench.store.schema import NOT_NEGATIVE

KINDS = (*LATENT_NOISE, LATENT_SHUFFLE, *INPUT_NOISE)


class _NoisyLoss(Metric):
    """Mean squared error of noisy reconstructions, by kind and level of the noise."""

    group = "robustness"
    bounds = NOT_NEGATIVE
    unit = "1"
    higher_is_better = False
    tolerance = 0.05
    needs = frozenset({"noisy_reconstructions"})

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._errors: dict[str, dict[float | None, ImageMean]] = {}

    @abstractmethod
    def target(self, batch: Batch) -> Tensor | None:
        """Return the images ``(N, C, H, W)`` to compare with; None if the batch does not count."""

    def update(self, batch: Batch) -> None:
        """Add the mean squared error of each image."""
        target = self.target(batch)
        if target is not None:
            assert batch.noise_kind is not None
            levels = self._errors.setdefault(batch.noise_kind, {})
            errors = levels.setdefault(batch.noise_level, ImageMean())
            errors.update(squared_errors(batch.images, target))

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation per kind and level, and a reason per kind that does not apply."""
        for kind in (NO_NOISE, *KINDS):
            yield from self._curve(kind)
            if kind in KINDS and kind not in self._errors:
                yield Observation(
                    None,
                    split="test",
                    status="not_applicable",
                    reason=self._missing(kind),
                    noise_kind=kind,
                )

    def _curve(self, kind: str) -> Iterator[Observation]:
        for level, errors in self._errors.get(kind, {}).items():
            yield errors.observation(split="test", noise_kind=kind, noise_level=level)

    def _missing(self, kind: str) -> str:
        if kind == LATENT_SHUFFLE and self._errors.keys() & LATENT_NOISE.keys():
            return "the model's latent has no time steps"
        return "the model cannot encode and decode"


class NoiseRobustness(_NoisyLoss):
    """Mean squared error between reconstructions under noise and the originals.

    Of values in [-1, 1], over ``noise_images`` drawn test images, one value per kind and level of
    :mod:`bench.metrics.noise`; lower is better. The kind ``none``, at level 0, is the
    reconstruction without noise.
    """

    name = "noise_robustness"
    label = "reconstruction loss under noise"
    version = "2"

    def target(self, batch: Batch) -> Tensor | None:
        """Return the originals ``(N, C, H, W)``."""
        return batch.originals


class NoiseRobustnessToNoiseFree(_NoisyLoss):
    """Mean squared error between reconstructions under noise and reconstructions without it.

    Of values in [-1, 1], over ``noise_images`` drawn test images, one value per kind and level of
    :mod:`bench.metrics.noise`; lower is better. The model draws the same random numbers with and
    without noise.
    """

    name = "noise_robustness_to_noise_free"
    label = "distance to the reconstruction without noise"
    version = "2"

    def target(self, batch: Batch) -> Tensor | None:
        """Return the reconstructions without noise ``(N, C, H, W)``; None for these themselves."""
        return None if batch.noise_kind == NO_NOISE else batch.noise_free
