"""Distances between features of generated and of reference images: FID, KID and variants."""

import math
from typing import ClassVar

import torch
from torch_fidelity.metric_kid import (
    KEY_METRIC_KID_MEAN,
    KEY_METRIC_KID_STD,
    kid_features_to_metric,
)

from bench.metrics.distribution import DistributionMetric, Estimate, counts
from bench.metrics.feature_pairs import FeaturePair
from bench.metrics.frechet import Moments, frechet_distance, moments, near_distances
from bench.metrics.uncertainty import GROUPS, LineFit, fit_line, jackknife_error, subset_sizes
from bench.store.schema import NOT_NEGATIVE, VIEWS, Headline, View

OFFICIAL_FID_IMAGES = 5000
SUBSET_SEED = 0
# Of distances that show where FID and FAD mislead.
PLOTS: tuple[View, ...] = ("metric_by_model", "quality_against_training_images")


class FID(DistributionMetric):
    """Fréchet inception distance (Heusel et al., arXiv:1706.08500), preprocessed as torch-fidelity.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` for the means and covariances of Inception
    features of generated and reference images; 0 or more, lower is better. The value falls as the
    number of images grows, so compare values of equal ``n`` only. The interval comes from a
    delete-a-group jackknife over ten groups of generated images, with the reference held fixed.

    Attributes:
        first_images: number of generated images to use, from the first on; None for all.
    """

    name = "fid"
    label = "FID"
    bounds = NOT_NEGATIVE
    headline = Headline(40, "FID", "generated", VIEWS)
    higher_is_better = False
    tolerance = 0.05
    extractors = ("inception_torch_fidelity",)
    selects_epochs = True
    of_moments = True
    has_scale = True
    first_images: ClassVar[int | None] = None

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """Return the distance, which needs at least two images in each set."""
        first = self.first_images
        n = len(pair.generated.pool[:first])
        if pair.smaller_count < 2:
            return counts(pair) + "the distance needs 2 of each"
        generated, reference = pair.once(_generated_moments, first), pair.reference_gaussian
        value = frechet_distance(
            generated.mean, generated.covariance, reference.mean, reference.covariance
        )
        return Estimate(value, pair.once(_distance_error, first), n)


class CleanFID(FID):
    """FID with the preprocessing of clean-fid for image files (Parmar et al., arXiv:2104.11222)."""

    name = "fid_clean"
    label = "FID, clean-fid"
    extractors = ("inception_clean",)
    selects_epochs = False


class OfficialFID(FID):
    """FID as the official code of FSVAE and ESVAE computes it.

    clean-fid on images that are not quantised to 8 bits, over the first 5,000 generated images.
    """

    name = "fid_official"
    label = "FID, papers' code"
    version = "2"
    extractors = ("inception_clean_float",)
    first_images = OFFICIAL_FID_IMAGES


class EfficientNetFrechetDistance(FID):
    """Fréchet distance of EfficientNet-Lite0 features: FID's formula, not comparable with FID."""

    name = "efficientnet_frechet_distance"
    label = "Fréchet distance, EfficientNet"
    headline = Headline(60, "EfficientNet FD", "generated", PLOTS)
    extractors = ("efficientnet_lite0",)
    selects_epochs = False


class DINOv2FrechetDistance(FID):
    """Fréchet distance of DINOv2 features (Stein et al., arXiv:2306.04675).

    FID's formula on 1,024 features, which agree better with people's judgement of images than
    Inception's. Not comparable with FID.
    """

    name = "fd_dinov2"
    label = "Fréchet distance, DINOv2"
    headline = Headline(65, "DINOv2 FD", "generated", PLOTS)
    extractors = ("dinov2",)
    selects_epochs = False


class InfiniteFID(DistributionMetric):
    """FID extrapolated to infinitely many generated images, which removes the bias of their number.

    Chong and Forsyth (arXiv:1911.07023): compute FID of 15 random subsets of the generated images,
    from half of them to all, fit a line to FID against 1/N, and take its value at 1/N = 0. Lower is
    better; negative values occur. The variance behind the interval is the sum of two variances: of
    the fit (draw of the subsets) and of the jackknife of FID (draw of the images).

    The smallest subset must hold more images than there are features: below that, covariances are
    singular and the bias is not linear in 1/N.

    Attributes:
        smallest_part: number of all images divided by the number in the smallest subset.
    """

    name = "fid_infinity"
    label = "FID, infinitely many images"
    higher_is_better: ClassVar[bool | None] = False
    tolerance = 0.05
    extractors = ("inception_torch_fidelity",)
    version = "2"
    of_moments = True
    smallest_part: ClassVar[int] = 2

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """Return the line's value, or why there are too few images to fit a line."""
        n, features = pair.generated.pool.shape
        if n // self.smallest_part <= features or pair.smaller_count < 2:
            least = self.smallest_part * (features + 1)
            return counts(pair) + (
                f"the extrapolation needs {least} generated images for {features} features, and 2 "
                "reference images"
            )
        return self.of_line(pair.once(_distance_line, self.smallest_part), pair, n)

    def of_line(self, fit: LineFit, pair: FeaturePair, n: int) -> Estimate:
        """Return the line's value at 1/N = 0.

        Args:
            fit: line through the subsets' distances against 1/N.
            pair: features of generated and reference images.
            n: number of generated images.
        """
        error = math.hypot(fit.intercept_error, pair.once(_distance_error, None) or 0)
        return Estimate(fit.intercept, error, n)


class InfiniteFIDSlope(InfiniteFID):
    """Slope of the line behind ``fid_infinity``, which measures the bias of FID.

    FID of N of these images is about ``fid_infinity + slope / N``. No better direction. The
    interval comes from the fit.
    """

    name = "fid_infinity_slope"
    label = "FID, slope over 1 / images"
    higher_is_better = None

    def of_line(self, fit: LineFit, pair: FeaturePair, n: int) -> Estimate:
        """Return the line's slope.

        Args:
            fit: line through the subsets' distances against 1/N.
            pair: features of generated and reference images; unused.
            n: number of generated images.
        """
        return Estimate(fit.slope, fit.slope_error, n)


class KID(DistributionMetric):
    """Kernel inception distance (Bińkowski et al., arXiv:1801.01401), computed by torch-fidelity.

    Mean over random subsets of the unbiased squared maximum mean discrepancy with the kernel
    ``(x . y / D + 1)^3`` of D features; lower is better. It is about 0 for equal distributions, so
    negative values occur. :func:`kid_error` gives the standard error behind the interval.
    """

    name = "kid"
    label = "KID"
    higher_is_better = False
    tolerance = 0.1
    extractors = ("inception_torch_fidelity",)

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """Return the mean over the protocol's subsets."""
        generated = pair.generated.pool
        subsets, size = self.protocol.kid_subsets, self.protocol.kid_subset_size
        smaller = min(len(generated), pair.reference_count)
        if smaller < size:
            return counts(pair) + f"kid_subset_size={size} needs {size} of each"
        statistics = kid_features_to_metric(
            generated, pair.reference, kid_subsets=subsets, kid_subset_size=size, verbose=False
        )
        error = kid_error(statistics[KEY_METRIC_KID_STD], subsets, size, smaller)
        return Estimate(statistics[KEY_METRIC_KID_MEAN], error, len(generated))


class EfficientNetKID(KID):
    """Kernel distance of EfficientNet-Lite0 features: KID's formula, not comparable with KID."""

    name = "efficientnet_kid"
    label = "KID, EfficientNet"
    extractors = ("efficientnet_lite0",)


class DINOv2KID(KID):
    """Kernel distance of DINOv2 features: KID's formula, not comparable with KID."""

    name = "kid_dinov2"
    label = "KID, DINOv2"
    extractors = ("dinov2",)


def kid_error(deviation: float, subsets: int, size: int, n: int) -> float | None:
    """Return the standard error of a mean over random subsets of m out of n images.

    Such subsets overlap: the variance s^2 between them is smaller than between independent sets
    of images, by the factor ``1 - m / n``. The variance of the mean is the sum of
    ``s^2 (m / n) / (1 - m / n)``, for the draw of the n images, and ``s^2 / subsets``, for the draw
    of the subsets.

    Args:
        deviation: standard deviation s of the values over the subsets.
        subsets: number of subsets.
        size: number m of images per subset.
        n: number n of images that the subsets are drawn from.

    Returns:
        The standard error; None if there is one subset only or each holds all images, because
        the deviation then says nothing.

    >>> round(kid_error(0.1, subsets=100, size=500, n=1000), 4)
    0.1005
    """
    if size == n or subsets < 2:
        return None
    fraction = size / n
    return deviation * math.sqrt(fraction / (1 - fraction) + 1 / subsets)


def _generated_moments(pair: FeaturePair, first: int | None) -> Moments:
    return moments(pair.generated.pool[:first])


def _distance_error(pair: FeaturePair, first: int | None) -> float | None:
    """Return the jackknife's standard error of the distance; None for fewer images than groups."""
    generated, moments_of_all = pair.generated.pool[:first], pair.once(_generated_moments, first)
    if len(generated) < GROUPS:
        return None
    left_out = (moments_of_all.without(moments(generated[i::GROUPS])) for i in range(GROUPS))
    return jackknife_error(near_distances(left_out, pair.reference_gaussian))


def _distance_line(pair: FeaturePair, smallest_part: int) -> LineFit:
    """Fit the distance against 1/N, over subsets drawn without replacement from a fixed seed."""
    generated, sizes = pair.generated.pool, subset_sizes(len(pair.generated.pool), smallest_part)
    generator = torch.Generator().manual_seed(SUBSET_SEED)
    drawn = (
        moments(generated[torch.randperm(len(generated), generator=generator)[:size]])
        for size in sizes
    )
    distances = near_distances(drawn, pair.reference_gaussian)
    return fit_line([1 / size for size in sizes], distances)
