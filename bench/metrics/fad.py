"""The Fréchet autoencoder distance: done right, as published, and for infinitely many images."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from bench.metrics.base import Batch, Facts, Metric, Observation
from bench.metrics.extractors.autoencoder import OfficialAutoencoder
from bench.metrics.extractors.base import Extractor, Extractors
from bench.metrics.frechet import Moments, frechet_distance, moments
from bench.metrics.uncertainty import GroupedMoments, infinite_distance, interval, subset_sizes
from bench.protocol import Protocol

EVALUATION = "autoencoder"
OFFICIAL = "official_autoencoder"
OFFICIAL_BATCH = 128


class FAD(Metric):
    """Fréchet distance between latents of generated and reference images, in evaluation mode.

    FAD (Kamata et al., arXiv:2110.00375) with the autoencoder's running statistics, so that an
    image's latent is its own. The interval is that of a delete-a-group jackknife over ten groups
    of generated images; the reference counts as known.
    """

    name = "fad"
    unit = "1"
    higher_is_better = False
    tolerance = 0.05
    needs = frozenset({"generated"})
    extractors = (EVALUATION,)
    selects_epochs = True

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._generated = GroupedMoments()

    def update(self, batch: Batch) -> None:
        """Add the latents of generated images."""
        if batch.split == "generated":
            self._generated.update(batch.features(EVALUATION).pool)

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """One observation, with its interval where there are at least ten images."""
        extractors = _extractors(facts)
        extractor, n = extractors.get(EVALUATION), self._generated.n
        reference = moments(extractors.reference(EVALUATION).pool)
        if min(n, reference.n) < 2:
            yield _too_few(extractor, n, reference.n)
            return
        expected = reference.mean, reference.covariance
        value = self._generated.distance(*expected)
        error = self._generated.standard_error(*expected)
        yield _observation(extractor, value, n, error)


class OfficialFAD(Metric):
    """FAD as the official code of FSVAE and ESVAE computes it, under each batch's statistics.

    That code never puts the autoencoder in evaluation mode. Generated images go through in batches
    of 128, in order, an incomplete last one included; the reference in batches of 256, or it is
    the published one where the published autoencoder is in use. Batch norm undoes what all images
    of a batch share, so this metric is blind to contrast: see :class:`FAD`.
    """

    name = "fad_official"
    unit = "1"
    higher_is_better = False
    tolerance = 0.05
    needs = frozenset({"generated"})
    extractors = (OFFICIAL,)

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._generated = Moments()
        self._open: list[Tensor] = []

    def update(self, batch: Batch) -> None:
        """Add the generated images to the official batch that is open; take in full ones."""
        if batch.split != "generated":
            return
        assert batch.extractors is not None
        extractor = batch.extractors.get(OFFICIAL)
        *full, rest = torch.cat([*self._open, batch.images]).split(OFFICIAL_BATCH)
        if len(rest) == OFFICIAL_BATCH:
            full, rest = [*full, rest], rest[:0]
        for images in full:
            self._generated.update(extractor(images).pool)
        self._open = [rest.clone()] if len(rest) else []

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """One observation."""
        extractors = _extractors(facts)
        extractor = extractors.get(OFFICIAL)
        for images in self._open:
            self._generated.update(extractor(images).pool)
        self._open = []
        n, reference = self._generated.n, len(extractors.setting.reference_images)
        if min(n, reference) < 2:
            yield _too_few(extractor, n, reference)
            return
        generated = self._generated.mean, self._generated.covariance
        value = frechet_distance(*generated, *_official_reference(extractors))
        yield _observation(extractor, value, n)


class InfiniteFAD(Metric):
    """FAD extrapolated to infinitely many generated images, where it has no bias left.

    After Chong and Forsyth (arXiv:1911.07023): FAD on 15 random subsets of the generated images,
    from a quarter of them to all, and a line through it against 1/N; the value is the line's at 0.
    The interval comes from the standard error of that fit: it leaves out that another N images
    would have been others. Below the latents' size a covariance is singular and the bias no longer
    a line, so the smallest subset must be larger. Unlike a distance, the value may be negative.
    """

    name = "fad_infinity"
    unit = "1"
    higher_is_better = False
    tolerance = 0.05
    needs = frozenset({"generated"})
    extractors = (EVALUATION,)

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._latents: list[Tensor] = []

    def update(self, batch: Batch) -> None:
        """Keep the latents of generated images: D floats each."""
        if batch.split == "generated":
            self._latents.append(batch.features(EVALUATION).pool)

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """One observation, with the fit's interval."""
        extractors = _extractors(facts)
        extractor = extractors.get(EVALUATION)
        latents, reference = torch.cat(self._latents), extractors.reference(EVALUATION).pool
        (n, size), sizes = latents.shape, subset_sizes(len(latents))
        if sizes[0] <= size or len(reference) < 2:
            reason = (
                f"{n} generated and {len(reference)} reference images: the extrapolation needs at "
                f"least {4 * (size + 1)} generated ones for {size} latents, and 2 of reference"
            )
            yield _not_applicable(extractor, n, reason)
            return
        expected = moments(reference)
        found = infinite_distance(latents, expected.mean, expected.covariance, sizes)
        yield _observation(extractor, found.value, n, found.standard_error)


def _extractors(facts: Facts) -> Extractors:
    assert facts.extractors is not None
    return facts.extractors


def _official_reference(extractors: Extractors) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance: the published ones, else of the reference images."""
    extractor = extractors.get(OFFICIAL)
    if isinstance(extractor, OfficialAutoencoder) and extractor.statistics:
        return extractor.statistics
    reference = moments(extractors.reference(OFFICIAL).pool)
    return reference.mean, reference.covariance


def _observation(
    extractor: Extractor, value: float, n: int, standard_error: float | None = None
) -> Observation:
    low, high = (None, None) if standard_error is None else interval(value, standard_error)
    return Observation(
        value,
        n=n,
        split="generated",
        ci_low=low,
        ci_high=high,
        extractor=extractor.description,
        extractor_sha256=extractor.sha256,
    )


def _too_few(extractor: Extractor, generated: int, reference: int) -> Observation:
    reason = f"{generated} generated and {reference} reference images: it needs 2 of each"
    return _not_applicable(extractor, generated, reason)


def _not_applicable(extractor: Extractor, n: int, reason: str) -> Observation:
    return Observation(
        None,
        n=n,
        split="generated",
        status="not_applicable",
        reason=reason,
        extractor=extractor.description,
        extractor_sha256=extractor.sha256,
    )
