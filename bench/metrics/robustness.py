"""How noise on the latent or on the input changes reconstructions."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator

from torch import Tensor

from bench.metrics.metric import Batch, Metric, ModelFacts, Observation
from bench.metrics.noise import INPUT_NOISE, LATENT_NOISE, LATENT_SHUFFLE, NO_NOISE
from bench.metrics.reconstruction import ImageMean, squared_errors
from bench.protocol import Protocol

KINDS = (*LATENT_NOISE, LATENT_SHUFFLE, *INPUT_NOISE)


class _NoisyLoss(Metric):
    """Squared error of noisy reconstructions, averaged by kind and level of the noise."""

    unit = "1"
    higher_is_better = False
    tolerance = 0.05
    needs = frozenset({"noisy_reconstructions"})

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._errors: dict[str, dict[float | None, ImageMean]] = {}

    @abstractmethod
    def target(self, batch: Batch) -> Tensor | None:
        """What the batch's images are compared with; None if they do not count."""

    def update(self, batch: Batch) -> None:
        """Add each image's squared error, averaged over its values."""
        target = self.target(batch)
        if target is not None:
            assert batch.noise_kind is not None
            levels = self._errors.setdefault(batch.noise_kind, {})
            errors = levels.setdefault(batch.noise_level, ImageMean())
            errors.update(squared_errors(batch.images, target))

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """One observation a kind and level; a reason for each kind that the model cannot have."""
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
    """Mean squared error, against the originals, of reconstructions under noise.

    In [-1, 1], over the first ``noise_images`` test images, by kind and level; see
    ``bench.metrics.noise``. The kind ``none``, level 0, is the reconstruction without noise.
    """

    name = "noise_robustness"

    def target(self, batch: Batch) -> Tensor | None:
        """The originals."""
        return batch.originals


class NoiseRobustnessToNoiseFree(_NoisyLoss):
    """Mean squared error, against those without noise, of reconstructions under noise.

    In [-1, 1], over the first ``noise_images`` test images, by kind and level; see
    ``bench.metrics.noise``. The model's own draws are the same with and without noise.
    """

    name = "noise_robustness_to_noise_free"

    def target(self, batch: Batch) -> Tensor | None:
        """The reconstructions without noise, but for themselves."""
        return None if batch.noise_kind == NO_NOISE else batch.noise_free
