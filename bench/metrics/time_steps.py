"""Quality of images that are decoded from the first time steps only."""

from collections.abc import Iterable

from bench.metrics.frechet import moments
from bench.metrics.metric import Batch, Metric, ModelFacts, Observation
from bench.metrics.reconstruction import ImageMean, squared_errors
from bench.metrics.uncertainty import GroupedMoments, interval
from bench.protocol import Protocol


class ReconstructionLossByTimeStep(Metric):
    """Mean squared error in [-1, 1] of reconstructions from the first t = 1..T time steps.

    The latents are drawn once, over all T, for the first ``time_step_images`` test images; the
    decoder starts at rest for each t and reads out after t steps. The last is the whole decoding.
    """

    name = "reconstruction_loss_by_time_step"
    unit = "1"
    higher_is_better = False
    tolerance = 0.02
    needs = frozenset({"partial_decodings"})

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._errors: dict[int, ImageMean] = {}

    def update(self, batch: Batch) -> None:
        """Add each reconstruction's squared error, averaged over its values."""
        if batch.originals is not None and batch.time_step is not None:
            errors = self._errors.setdefault(batch.time_step, ImageMean())
            errors.update(squared_errors(batch.images, batch.originals))

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """One observation a time step."""
        for time_step, errors in self._errors.items():
            yield errors.observation(split="test", time_step=time_step)


class FrechetDistanceByTimeStep(Metric):
    """Fréchet distance of samples decoded from the first t = 1..T time steps.

    The features are those of the dataset's autoencoder, as for the Fréchet autoencoder distance,
    and so is the reference. The latents are drawn once, over all T, for the first
    ``time_step_images`` samples: the last is the distance of whole decodings, over so many images.
    The interval is that of a delete-a-group jackknife over ten groups of samples, where there are
    as many; the reference counts as known.
    """

    name = "frechet_distance_by_time_step"
    unit = "1"
    higher_is_better = False
    tolerance = 0.05
    needs = frozenset({"partial_decodings"})
    extractors = ("autoencoder",)

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._moments: dict[int, GroupedMoments] = {}

    def update(self, batch: Batch) -> None:
        """Add the features of samples."""
        if batch.split == "generated" and batch.time_step is not None:
            found = self._moments.setdefault(batch.time_step, GroupedMoments())
            found.update(batch.features("autoencoder").pool)

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """One observation a time step."""
        assert facts.extractors is not None
        extractor = facts.extractors.get("autoencoder")
        reference = moments(facts.extractors.reference("autoencoder").pool)
        reason = self._inapplicable(reference.n)
        if reason:
            yield Observation(None, split="generated", status="not_applicable", reason=reason)
            return
        expected = reference.mean, reference.covariance
        for time_step, found in self._moments.items():
            value = found.distance(*expected)
            error = found.standard_error(*expected)
            low, high = (None, None) if error is None else interval(value, error)
            yield Observation(
                value,
                n=found.n,
                split="generated",
                ci_low=low,
                ci_high=high,
                time_step=time_step,
                extractor=extractor.description,
                extractor_sha256=extractor.sha256,
            )

    def _inapplicable(self, reference: int) -> str | None:
        if not self._moments:
            return "the model cannot draw latents from its prior"
        generated = min(found.n for found in self._moments.values())
        if min(generated, reference) < 2:
            return f"{generated} generated and {reference} reference images: it needs 2 of each"
        return None
