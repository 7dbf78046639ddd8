"""Distances between the features of generated and reference images: FID, KID, their kin."""

import math

import numpy as np
from torch import Tensor
from torch_fidelity.metric_kid import (
    KEY_METRIC_KID_MEAN,
    KEY_METRIC_KID_STD,
    kid_features_to_metric,
)

from bench.metrics.distribution import DistributionMetric, Estimate
from bench.metrics.extractors.base import Extractors
from bench.metrics.frechet import frechet_distance, moments, near_distances
from bench.metrics.uncertainty import GROUPS, infinite_distance, jackknife_error

SUBSETS = 10


class FID(DistributionMetric):
    """Fréchet inception distance (Heusel et al., arXiv:1706.08500) as torch-fidelity computes it.

    It falls with the number of images, so values compare only where that number agrees. The
    interval is that of a delete-a-group jackknife over ten groups of generated images; the
    reference counts as known.
    """

    name = "fid"
    higher_is_better = False
    tolerance = 0.05
    extractors = ("inception_torch_fidelity",)
    selects_epochs = True

    def estimate(self, generated: Tensor, extractors: Extractors) -> Estimate | str:
        """The distance, from two images a side."""
        reference = self.reference(extractors)
        if min(len(generated), len(reference)) < 2:
            return _counts(generated, reference) + "the distance needs 2 of each"
        expected, found = moments(reference), moments(generated)
        error = None
        if len(generated) >= GROUPS:
            left_out = (found.without(moments(generated[i::GROUPS])) for i in range(GROUPS))
            error = jackknife_error(near_distances(left_out, expected))
        value = frechet_distance(found.mean, found.covariance, expected.mean, expected.covariance)
        return Estimate(value, error, len(generated))


class CleanFID(FID):
    """FID as clean-fid computes it from image files (Parmar et al., arXiv:2104.11222)."""

    name = "fid_clean"
    extractors = ("inception_clean",)
    selects_epochs = False


class OfficialFID(FID):
    """FID as FSVAE's and ESVAE's code computes it: clean-fid, images not quantised to 8 bits."""

    name = "fid_official"
    extractors = ("inception_clean_float",)
    selects_epochs = False


class EfficientNetFrechetDistance(FID):
    """The Fréchet distance of FID between features of EfficientNet-Lite0; no FID."""

    name = "efficientnet_frechet_distance"
    extractors = ("efficientnet_lite0",)
    selects_epochs = False


class InfiniteFID(DistributionMetric):
    """FID extrapolated to infinitely many generated images, where their number gives no bias.

    After Chong and Forsyth (arXiv:1911.07023): FID of ten random subsets of the generated images,
    from half of them to all, and a line through it against 1/N, whose value at 0 this is. The
    interval comes from the standard error of the fit: it leaves out that another N images would
    have been others. Covariances of fewer images than features are singular and the bias no longer
    a line, so the smallest subset must be larger. The value may be negative.
    """

    name = "fid_infinity"
    higher_is_better = False
    tolerance = 0.05
    extractors = ("inception_torch_fidelity",)

    def estimate(self, generated: Tensor, extractors: Extractors) -> Estimate | str:
        """The line's value at 0."""
        reference = self.reference(extractors)
        n, features = generated.shape
        if n // 2 <= features or len(reference) < 2:
            return _counts(generated, reference) + (
                f"the extrapolation needs {2 * (features + 1)} generated ones for {features} "
                "features, and 2 of reference"
            )
        expected = moments(reference)
        sizes = np.linspace(n // 2, n, SUBSETS).round().astype(int).tolist()
        found = infinite_distance(generated, expected.mean, expected.covariance, sizes)
        return Estimate(found.value, found.standard_error, n)


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

    def estimate(self, generated: Tensor, extractors: Extractors) -> Estimate | str:
        """The mean over the protocol's subsets."""
        reference = self.reference(extractors)
        subsets, size = self.protocol.kid_subsets, self.protocol.kid_subset_size
        smaller = min(len(generated), len(reference))
        if smaller < size:
            return _counts(generated, reference) + f"kid_subset_size={size} needs {size} of each"
        found = kid_features_to_metric(
            generated, reference, kid_subsets=subsets, kid_subset_size=size, verbose=False
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


def _counts(generated: Tensor, reference: Tensor) -> str:
    return f"{len(generated)} generated and {len(reference)} reference images: "
