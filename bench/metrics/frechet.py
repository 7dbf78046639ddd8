"""The Fréchet distance between Gaussians, and streaming means and covariances."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from scipy.linalg import eigvalsh, svdvals
from scipy.linalg.lapack import dpstrf
from torch import Tensor

VECTORS_AT_ONCE = 1000


class Gaussian(Protocol):
    """Mean ``(D,)`` and covariance ``(D, D)`` of features, float64."""

    @property
    def mean(self) -> np.ndarray:
        """Mean ``(D,)``."""

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased covariance ``(D, D)``."""


class Moments:
    """Mean and covariance of feature vectors, accumulated batch by batch in float64.

    Batches are merged by the pairwise update of Chan, Golub and LeVeque (1983), which stays
    accurate if the mean is large compared with the spread.

    Attributes:
        n: number of feature vectors.

    >>> seen = Moments()
    >>> seen.update(Tensor([[1.0], [3.0]]))
    >>> seen.update(Tensor([[5.0]]))
    >>> seen.mean, seen.covariance
    (array([3.]), array([[4.]]))
    """

    def __init__(self) -> None:
        self.n = 0
        self._mean = np.zeros(0)
        self._scatter = np.zeros((0, 0))

    def update(self, features: Tensor) -> None:
        """Add features ``(N, D)``."""
        batch = features.detach().cpu().double().numpy()
        if not len(batch):
            return
        mean = batch.mean(0)
        centred = batch - mean
        scatter = centred.T @ centred
        if not self.n:
            self.n, self._mean, self._scatter = len(batch), mean, scatter
            return
        total = self.n + len(batch)
        shift = mean - self._mean
        self._scatter += scatter + np.outer(shift, shift) * (self.n * len(batch) / total)
        self._mean = self._mean + shift * (len(batch) / total)
        self.n = total

    def without(self, part: "Moments") -> "Moments":
        """Return the moments of the vectors outside ``part``, a subset of the vectors added here.

        Raises:
            ValueError: no vector would remain.
        """
        if part.n >= self.n:
            raise ValueError(f"leaving out {part.n} of {self.n} images leaves none")
        rest = Moments()
        rest.n = self.n - part.n
        rest._mean = (self._mean * self.n - part._mean * part.n) / rest.n
        shift = part._mean - rest._mean
        between = np.outer(shift, shift) * (rest.n * part.n / self.n)
        rest._scatter = self._scatter - part._scatter - between
        return rest

    @property
    def mean(self) -> np.ndarray:
        """Mean ``(D,)``."""
        return self._mean

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased covariance ``(D, D)``.

        Raises:
            ValueError: there are fewer than two feature vectors.
        """
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 images, got {self.n}")
        return self._scatter / (self.n - 1)


def moments(features: Tensor) -> Moments:
    """Return the moments of features ``(N, D)``, computed in parts to save memory."""
    accumulated = Moments()
    for part in features.split(VECTORS_AT_ONCE):
        accumulated.update(part)
    return accumulated


def frechet_distance(
    mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray
) -> float:
    """Return the squared Fréchet distance of two Gaussians in D dimensions.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))``: the square of the distance of Dowson and Landau
    (1982), which is how FID is defined (Heusel et al., arXiv:1706.08500, equation 6).

    With ``C1 = R1 R1^T`` and ``C2 = R2 R2^T``, the trace of ``(C1 C2)^(1/2)`` is the sum of the
    singular values of ``R1^T R2``. This needs no matrix square root and is exact for singular
    covariances too.

    Args:
        mean: mean ``(D,)`` of the first Gaussian, float64.
        covariance: covariance ``(D, D)`` of the first Gaussian.
        other_mean: mean ``(D,)`` of the second Gaussian.
        other_covariance: covariance ``(D, D)`` of the second Gaussian.

    Returns:
        The distance, 0 or more.

    Raises:
        ValueError: the dimensions differ, or a value is not finite.

    >>> mean, covariance = np.zeros(2), np.eye(2)
    >>> frechet_distance(mean, covariance, mean + 1, 4 * covariance)
    4.0
    """
    if mean.shape != other_mean.shape or covariance.shape != other_covariance.shape:
        raise ValueError(f"dimensions differ: {mean.shape} and {other_mean.shape}")
    parts = (mean, covariance, other_mean, other_covariance)
    if not all(np.isfinite(part).all() for part in parts):
        raise ValueError("the features contain values that are not finite")
    difference = mean - other_mean
    product = _root(covariance).T @ _root(other_covariance)
    cross = float(svdvals(product, check_finite=False).sum()) if product.size else 0.0
    traces = float(np.trace(covariance) + np.trace(other_covariance))
    return max(float(difference @ difference) + traces - 2 * cross, 0.0)


def near_distances(parts: Iterable[Moments], reference: Gaussian) -> list[float]:
    """Return the Fréchet distances of several sets to one reference, fast and less exactly.

    Each takes a third of the time of :func:`frechet_distance` and has half its digits, which is
    enough to compute the spread of the distances. With ``C2 = R R^T``, the trace of
    ``(C1 C2)^(1/2)`` is the sum of the square roots of the eigenvalues of ``R^T C1 R``.

    Args:
        parts: moments of each set, of D features.
        reference: mean and covariance of the reference, of D features.

    Raises:
        ValueError: a set or the reference has fewer than two feature vectors.
    """
    root, total = _root(reference.covariance), float(np.trace(reference.covariance))
    distances = []
    for part in parts:
        covariance, difference = part.covariance, part.mean - reference.mean
        values = eigvalsh(root.T @ covariance @ root) if root.size else np.zeros(1)
        kept = values[values > values[-1] * len(values) * np.finfo(values.dtype).eps]
        traces = float(np.trace(covariance)) + total
        distances.append(float(difference @ difference) + traces - 2 * float(np.sqrt(kept).sum()))
    return distances


def _root(covariance: np.ndarray) -> np.ndarray:
    """Return R ``(D, rank)`` with ``R R^T`` the covariance, by Cholesky's method with pivoting."""
    factor, pivots, rank, _ = dpstrf(covariance, lower=1)
    root = np.empty((len(covariance), rank))
    root[pivots - 1] = np.tril(factor)[:, :rank]
    return root
