"""Quality of images decoded from the first t of T time steps."""

from collections.abc import Iterable

from bench.metrics.frechet import moments
from bench.metrics.metric import Batch, Metric, ModelFacts, Observation
from bench.metrics.reconstruction import ImageMean, squared_errors
from bench.metrics.uncertainty import GroupedMoments, interval
from bench.protocol import Protocol
from bench.store.schema import NOT_NEGATIVE


class ReconstructionLossByTimeStep(Metric):
    """Mean squared error of reconstructions decoded from the first t = 1..T time steps.

    Of values in [-1, 1]; lower is better. The latents of ``time_step_images`` drawn test images are
    sampled once, over all T steps. For each t the decoder starts at rest and its output is read
    after t steps; t = T is the complete decoding.
    """

    name = "reconstruction_loss_by_time_step"
    bounds = NOT_NEGATIVE
    version = "2"
    unit = "1"
    higher_is_better = False
    tolerance = 0.02
    needs = frozenset({"partial_decodings"})

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._errors: dict[int, ImageMean] = {}

    def update(self, batch: Batch) -> None:
        """Add the mean squared error of each reconstruction."""
        if batch.originals is not None and batch.time_step is not None:
            errors = self._errors.setdefault(batch.time_step, ImageMean())
            errors.update(squared_errors(batch.images, batch.originals))

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation per time step."""
        for time_step, errors in self._errors.items():
            yield errors.observation(split="test", time_step=time_step)


class FrechetDistanceByTimeStep(Metric):
    """Fréchet autoencoder distance of samples decoded from the first t = 1..T time steps.

    Computed as ``fad``, with the same autoencoder and reference, from ``time_step_images`` samples;
    0 or more, lower is better. The latents are drawn once, over all T steps; t = T is the complete
    decoding. The interval comes from a delete-a-group jackknife over ten groups of samples, with
    the reference held fixed; there is none for fewer than ten samples.
    """

    name = "frechet_distance_by_time_step"
    label = "Fréchet distance by time step"
    bounds = NOT_NEGATIVE
    unit = "1"
    higher_is_better = False
    tolerance = 0.05
    needs = frozenset({"partial_decodings"})
    extractors = ("autoencoder",)

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._moments: dict[int, GroupedMoments] = {}

    def update(self, batch: Batch) -> None:
        """Add the features of one batch of samples."""
        if batch.split == "generated" and batch.time_step is not None:
            grouped = self._moments.setdefault(batch.time_step, GroupedMoments())
            grouped.update(batch.features("autoencoder").pool)

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation per time step."""
        assert facts.extractors is not None
        extractor = facts.extractors.get("autoencoder")
        reference = moments(facts.extractors.reference("autoencoder").pool)
        reason = self._inapplicable(reference.n)
        if reason:
            yield Observation(None, split="generated", status="not_applicable", reason=reason)
            return
        expected = reference.mean, reference.covariance
        for time_step, grouped in self._moments.items():
            value = grouped.distance(*expected)
            error = grouped.standard_error(*expected)
            low, high = (None, None) if error is None else interval(value, error)
            yield Observation(
                value,
                n=grouped.n,
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
        generated = min(grouped.n for grouped in self._moments.values())
        if min(generated, reference) < 2:
            return f"{generated} generated and {reference} reference images: 2 of each are needed"
        return None
