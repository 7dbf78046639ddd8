"""The Fréchet autoencoder distance: corrected, as published, and without the bias of N."""

import numpy as np

from bench.metrics.distances import FID, InfiniteFID, InfiniteFIDSlope
from bench.metrics.distribution import DistributionMetric, Estimate, counts
from bench.metrics.extractors.autoencoder import OfficialAutoencoder
from bench.metrics.feature_pairs import FeaturePair
from bench.metrics.frechet import frechet_distance, moments
from bench.store.schema import NOT_NEGATIVE, VIEWS, Headline


class FAD(FID):
    """Fréchet autoencoder distance (Kamata et al., arXiv:2110.00375), in evaluation mode.

    FID's formula on latents of a plain autoencoder; 0 or more, lower is better. In evaluation mode
    the latent of an image does not depend on the other images of its batch. The interval comes from
    a delete-a-group jackknife over ten groups of generated images, with the reference held fixed.
    """

    name = "fad"
    label = "FAD"
    headline = Headline(70, "FAD", "generated", VIEWS)
    extractors = ("autoencoder",)


class OfficialFAD(DistributionMetric):
    """FAD as the official code of FSVAE and ESVAE computes it, with statistics per batch.

    That code never puts the autoencoder in evaluation mode, so batch norm uses the statistics of
    each batch. Generated images are encoded in batches of ``official_fad_batch_size`` (in the
    protocol), in order, with a smaller last batch; reference images in batches of 256, unless the
    published reference statistics are in use. Batch norm removes a contrast or brightness that a
    whole batch shares, so this metric does not see it; :class:`FAD` does.
    """

    name = "fad_official"
    label = "FAD, papers' code"
    bounds = NOT_NEGATIVE
    higher_is_better = False
    tolerance = 0.05
    extractors = ("official_autoencoder",)
    selects_epochs = True
    has_scale = True

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """Return the distance, which needs at least two images in each set.

        It has no standard error, because the latents of a batch depend on each other.
        """
        n = len(pair.generated.pool)
        if min(n, pair.reference_count) < 2:
            return counts(pair) + "the distance needs 2 of each"
        generated = moments(pair.generated.pool)
        value = frechet_distance(generated.mean, generated.covariance, *_official_reference(pair))
        return Estimate(value, None, n)


class InfiniteFAD(InfiniteFID):
    """FAD extrapolated to infinitely many generated images, which removes the bias of their number.

    Computed as ``fid_infinity``, but the smallest subset holds a quarter of the images.
    """

    name = "fad_infinity"
    label = "FAD, infinitely many images"
    extractors = ("autoencoder",)
    smallest_part = 4


class InfiniteFADSlope(InfiniteFIDSlope):
    """Slope of the line behind ``fad_infinity``, which measures the bias of FAD.

    FAD of N of these images is about ``fad_infinity + slope / N``. No better direction. The
    interval comes from the fit.
    """

    name = "fad_infinity_slope"
    label = "FAD, slope over 1 / images"
    extractors = ("autoencoder",)
    smallest_part = 4


def _official_reference(pair: FeaturePair) -> tuple[np.ndarray, np.ndarray]:
    """Return the published mean ``(D,)`` and covariance ``(D, D)``, else the reference images'."""
    extractor = pair.extractor
    if isinstance(extractor, OfficialAutoencoder) and extractor.statistics:
        return extractor.statistics
    reference = moments(pair.reference)
    return reference.mean, reference.covariance
