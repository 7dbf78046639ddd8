"""The Vendi score: the effective number of different images among the generated ones."""

import math

import numpy as np
from scipy.linalg import eigvalsh
from scipy.special import entr
from torch import Tensor

from bench.metrics.distribution import DistributionMetric, Estimate
from bench.metrics.feature_pairs import FeaturePair
from bench.metrics.uncertainty import GROUPS, jackknife_error

VECTORS_AT_ONCE = 1000
ROUNDING = 1e-12
"""Relative error of a score up to which groups count as equal."""


class VendiScore(DistributionMetric):
    """Effective number of different images among N generated images, in [1, N].

    Friedman and Dieng (arXiv:2210.02410): the exponential of the entropy of the eigenvalues of
    K / N, K being the cosines between the images' features. N orthogonal vectors have N, equal
    ones 1. Higher means more diverse; it says nothing about quality, and images of noise are
    diverse. The value grows with the number of images, so compare values of equal ``n`` only. The
    interval comes from a delete-a-group jackknife over ten groups of images.
    """

    name = "vendi_score"
    label = "Vendi score, Inception"
    higher_is_better = True
    tolerance = 0.05
    extractors = ("inception_torch_fidelity",)
    splits = ()

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """Return the score, which needs features with a direction."""
        features = pair.generated.pool
        zeros = int((features == 0).all(1).sum())
        if zeros:
            return (
                f"{zeros} of {len(features)} generated images have features that are all zero: "
                "the cosine needs a direction"
            )
        return Estimate(*vendi_score(features), len(features))


class AutoencoderVendiScore(VendiScore):
    """Vendi score in the feature space of FAD's autoencoder."""

    name = "autoencoder_vendi_score"
    label = "Vendi score, autoencoder"
    extractors = ("autoencoder",)


def vendi_score(features: Tensor) -> tuple[float, float | None]:
    """Return the Vendi score with the cosine kernel, and its standard error.

    With X the features divided by their lengths, ``X X^T / N`` and the smaller of the two,
    ``X^T X / N``, have the same eigenvalues but for zeros.

    Args:
        features: feature vectors ``(N, D)``, none of which is zero.

    Returns:
        The score, and its standard error by the delete-a-group jackknife; None for fewer vectors
        than groups, or for groups that differ by rounding alone.

    >>> import torch
    >>> vendi_score(torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0], [1.0, 0.0]]))
    (2.0, None)
    """
    n, width = features.shape
    if n <= width:
        directions = _directions(features)
        cosines = directions @ directions.T
        kept = (np.arange(n) % GROUPS != group for group in range(GROUPS))
        left_out = (cosines[np.ix_(rows, rows)] for rows in kept)
        value = _effective_number(cosines)
    else:
        products = _products(features)
        groups = (features[group::GROUPS] for group in range(GROUPS))
        left_out = (products - _products(group) for group in groups)
        value = _effective_number(products)
    if n < GROUPS:
        return value, None
    error = jackknife_error([_effective_number(matrix) for matrix in left_out])
    return value, error if error > ROUNDING * value else None


def _effective_number(matrix: np.ndarray) -> float:
    """Return the exponential of the entropy of the eigenvalues, divided by their sum."""
    values = eigvalsh(matrix).clip(0)
    return math.exp(float(entr(values / values.sum()).sum()))


def _directions(features: Tensor) -> np.ndarray:
    """Return vectors ``(N, D)`` divided by their lengths, float64."""
    vectors = features.double().numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _products(features: Tensor) -> np.ndarray:
    """Return ``X^T X``, ``(D, D)``, of the directions X, computed in parts to save memory."""
    total = np.zeros((features.shape[1], features.shape[1]))
    for part in features.split(VECTORS_AT_ONCE):
        directions = _directions(part)
        total += directions.T @ directions
    return total
