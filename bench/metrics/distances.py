"""Distances between the features of generated and reference images: FID, KID, their kin."""

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
from bench.metrics.uncertainty import GROUPS, Line, jackknife_error, line, subset_sizes
from bench.store.schema import VIEWS, Headline

OFFICIAL_FID_IMAGES = 5000
SUBSET_SEED = 0


class FID(DistributionMetric):
    """Fréchet inception distance (Heusel et al., arXiv:1706.08500) as torch-fidelity computes it.

    It falls with the number of images, so values compare only where that number agrees. The
    interval is that of a delete-a-group jackknife over ten groups of generated images; the
    reference counts as known.

    Attributes:
        first_images: how many of the generated images it takes; None for all.
    """

    name = "fid"
    headline = Headline(40, "FID", "generated", VIEWS)
    higher_is_better = False
    tolerance = 0.05
    extractors = ("inception_torch_fidelity",)
    selects_epochs = True
    first_images: ClassVar[int | None] = None

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """The distance, from two images a side."""
        first = self.first_images
        n = len(pair.generated.pool[:first])
        if min(n, pair.reference_count) < 2:
            return counts(pair) + "the distance needs 2 of each"
        expected, found = pair.once(_reference_moments), pair.once(_generated_moments, first)
        value = frechet_distance(found.mean, found.covariance, expected.mean, expected.covariance)
        return Estimate(value, pair.once(_distance_error, first), n)


class CleanFID(FID):
    """FID as clean-fid computes it from image files (Parmar et al., arXiv:2104.11222)."""

    name = "fid_clean"
    extractors = ("inception_clean",)
    selects_epochs = False


class OfficialFID(FID):
    """FID as FSVAE's and ESVAE's code computes it: clean-fid, images not quantised to 8 bits.

    Of the first 5,000 generated images.
    """

    name = "fid_official"
    version = "2"
    extractors = ("inception_clean_float",)
    first_images = OFFICIAL_FID_IMAGES


class EfficientNetFrechetDistance(FID):
    """The Fréchet distance of FID between features of EfficientNet-Lite0; no FID."""

    name = "efficientnet_frechet_distance"
    headline = Headline(60, "EfficientNet FD", "generated", ("metric_by_model",))
    extractors = ("efficientnet_lite0",)
    selects_epochs = False


class InfiniteFID(DistributionMetric):
    """FID extrapolated to infinitely many generated images, where their number gives no bias.

    After Chong and Forsyth (arXiv:1911.07023): FID of 15 random subsets of the generated images,
    from half of them to all, and a line through it against 1/N, whose value at 0 this is. The
    variance behind the interval is the fit's, of which images the subsets hold, and the jackknife's
    of FID, of which images there are. Covariances of fewer images than features are singular and
    the bias no longer a line, so the smallest subset must be larger. The value may be negative.

    Attributes:
        smallest_part: all images over those of the smallest subset.
    """

    name = "fid_infinity"
    higher_is_better: ClassVar[bool | None] = False
    tolerance = 0.05
    extractors = ("inception_torch_fidelity",)
    version = "2"
    smallest_part: ClassVar[int] = 2

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """What the line has of it, where there are images enough for one."""
        n, features = pair.generated.pool.shape
        if n // self.smallest_part <= features or pair.reference_count < 2:
            return counts(pair) + (
                f"the extrapolation needs {self.smallest_part * (features + 1)} generated ones for "
                f"{features} features, and 2 of reference"
            )
        return self.of_line(pair.once(_line, self.smallest_part), pair, n)

    def of_line(self, fit: Line, pair: FeaturePair, n: int) -> Estimate:
        """The line's value at 0."""
        error = math.hypot(fit.intercept_error, pair.once(_distance_error, None) or 0)
        return Estimate(fit.intercept, error, n)


class InfiniteFIDSlope(InfiniteFID):
    """The slope of the line behind ``fid_infinity``: what FID loses with 1/N, times N.

    FID of N of these images is about ``fid_infinity + slope / N``. The interval is the fit's.
    """

    name = "fid_infinity_slope"
    higher_is_better = None

    def of_line(self, fit: Line, pair: FeaturePair, n: int) -> Estimate:
        """The line's slope."""
        return Estimate(fit.slope, fit.slope_error, n)


class KID(DistributionMetric):
    """Kernel inception distance (Bińkowski et al., arXiv:1801.01401), torch-fidelity's function.

    The mean over random subsets of the unbiased squared maximum mean discrepancy with the kernel
    ``(x . y / D + 1)^3``; on equal distributions it is around 0, so negative values occur. For the
    interval see :func:`kid_error`.
    """

    name = "kid"
    higher_is_better = False
    tolerance = 0.1
    extractors = ("inception_torch_fidelity",)

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """The mean over the protocol's subsets."""
        generated = pair.generated.pool
        subsets, size = self.protocol.kid_subsets, self.protocol.kid_subset_size
        smaller = min(len(generated), pair.reference_count)
        if smaller < size:
            return counts(pair) + f"kid_subset_size={size} needs {size} of each"
        found = kid_features_to_metric(
            generated, pair.reference, kid_subsets=subsets, kid_subset_size=size, verbose=False
        )
        error = kid_error(found[KEY_METRIC_KID_STD], subsets, size, smaller)
        return Estimate(found[KEY_METRIC_KID_MEAN], error, len(generated))


class EfficientNetKID(KID):
    """The kernel distance of KID between features of EfficientNet-Lite0; no KID."""

    name = "efficientnet_kid"
    extractors = ("efficientnet_lite0",)


def kid_error(deviation: float, subsets: int, size: int, n: int) -> float | None:
    """The standard error of a mean over random subsets of m out of n images.

    Such subsets overlap: their spread s shrinks by ``1 - m / n`` against that of independent sets,
    and their mean is no surer than all n images make it. So the variance is ``s^2 (m / n) /
    (1 - m / n)`` for the images and ``s^2 / subsets`` for the draw. None where every subset holds
    all images or there is but one, and the spread tells nothing.
    """
    if size == n or subsets < 2:
        return None
    fraction = size / n
    return deviation * math.sqrt(fraction / (1 - fraction) + 1 / subsets)


def _generated_moments(pair: FeaturePair, first: int | None) -> Moments:
    return moments(pair.generated.pool[:first])


def _reference_moments(pair: FeaturePair) -> Moments:
    return moments(pair.reference)


def _distance_error(pair: FeaturePair, first: int | None) -> float | None:
    """The jackknife's standard error of the distance; None for fewer images than groups."""
    generated, found = pair.generated.pool[:first], pair.once(_generated_moments, first)
    if len(generated) < GROUPS:
        return None
    left_out = (found.without(moments(generated[i::GROUPS])) for i in range(GROUPS))
    return jackknife_error(near_distances(left_out, pair.once(_reference_moments)))


def _line(pair: FeaturePair, smallest_part: int) -> Line:
    """The distance against 1/N, over subsets drawn without replacement with a fixed seed."""
    generated, sizes = pair.generated.pool, subset_sizes(len(pair.generated.pool), smallest_part)
    generator = torch.Generator().manual_seed(SUBSET_SEED)
    drawn = (
        moments(generated[torch.randperm(len(generated), generator=generator)[:size]])
        for size in sizes
    )
    distances = near_distances(drawn, pair.once(_reference_moments))
    return line([1 / size for size in sizes], distances)
