"""The Fréchet autoencoder distance: done right, as published, and for infinitely many images."""

import numpy as np

from bench.metrics.distances import FID, InfiniteFID, InfiniteFIDSlope
from bench.metrics.distribution import DistributionMetric, Estimate, counts
from bench.metrics.extractors.autoencoder import OfficialAutoencoder
from bench.metrics.feature_pairs import FeaturePair
from bench.metrics.frechet import frechet_distance, moments
from bench.store.schema import VIEWS, Headline


class FAD(FID):
    """Fréchet distance between latents of generated and reference images, in evaluation mode.

    FAD (Kamata et al., arXiv:2110.00375) with the autoencoder's running statistics, so that an
    image's latent is its own. The interval is that of a delete-a-group jackknife over ten groups
    of generated images; the reference counts as known.
    """

    name = "fad"
    headline = Headline(70, "FAD", "generated", VIEWS)
    extractors = ("autoencoder",)


class OfficialFAD(DistributionMetric):
    """FAD as the official code of FSVAE and ESVAE computes it, under each batch's statistics.

    That code never puts the autoencoder in evaluation mode. Generated images go through in batches
    of 128, in order, an incomplete last one included; the reference in batches of 256, or it is
    the published one where the published autoencoder is in use. Batch norm undoes what all images
    of a batch share, so this metric is blind to contrast: see :class:`FAD`.
    """

    name = "fad_official"
    higher_is_better = False
    tolerance = 0.05
    extractors = ("official_autoencoder",)
    selects_epochs = True

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """The distance, from two images a side.

        Without an error: latents of one batch depend on each other.
        """
        n = len(pair.generated.pool)
        if min(n, pair.reference_count) < 2:
            return counts(pair) + "the distance needs 2 of each"
        found = moments(pair.generated.pool)
        value = frechet_distance(found.mean, found.covariance, *_official_reference(pair))
        return Estimate(value, None, n)


class InfiniteFAD(InfiniteFID):
    """FAD extrapolated to infinitely many generated images, where it has no bias left.

    As ``fid_infinity``, with the smallest subset a quarter of the images.
    """

    name = "fad_infinity"
    extractors = ("autoencoder",)
    smallest_part = 4


class InfiniteFADSlope(InfiniteFIDSlope):
    """The slope of the line behind ``fad_infinity``: FAD of N images is about that plus slope / N.

    The interval is the fit's.
    """

    name = "fad_infinity_slope"
    extractors = ("autoencoder",)
    smallest_part = 4


def _official_reference(pair: FeaturePair) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance: the published ones, else of the reference images."""
    extractor = pair.extractor
    if isinstance(extractor, OfficialAutoencoder) and extractor.statistics:
        return extractor.statistics
    reference = moments(pair.reference)
    return reference.mean, reference.covariance
