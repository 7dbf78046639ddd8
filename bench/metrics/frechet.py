"""The Fréchet distance between Gaussians, and the moments that it compares."""

import numpy as np
import torch
from torch import Tensor


class Moments:
    """Mean and covariance of features, summed up batch by batch in float64.

    Batches merge by the pairwise update of Chan, Golub and LeVeque (1983), which keeps its digits
    where the mean is large.

    Attributes:
        n: how many feature vectors.
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

    @property
    def mean(self) -> np.ndarray:
        """The mean, ``(D,)``."""
        return self._mean

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance, ``(D, D)``.

        Raises:
            ValueError: fewer than two feature vectors.
        """
        if self.n < 2:
            raise ValueError(f"a covariance needs at least 2 images, got {self.n}")
        return self._scatter / (self.n - 1)


def moments(features: Tensor) -> Moments:
    """The moments of features ``(N, D)``."""
    found = Moments()
    found.update(features)
    return found


def frechet_distance(
    mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray
) -> float:
    """``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` of two Gaussians in ``(D,)``.

    The square of the distance of Dowson and Landau (1982), as FID is defined (Heusel et al.,
    arXiv:1706.08500). The trace of ``(C1 C2)^(1/2)`` is the sum of the singular values of
    ``C1^(1/2) C2^(1/2)``; no matrix square root of a product is taken, and singular covariances
    are as good as any.

    Raises:
        ValueError: the dimensions differ, or a value is not finite.
    """
    if mean.shape != other_mean.shape or covariance.shape != other_covariance.shape:
        raise ValueError(f"dimensions differ: {mean.shape} and {other_mean.shape}")
    parts = (mean, covariance, other_mean, other_covariance)
    if not all(np.isfinite(part).all() for part in parts):
        raise ValueError("the features hold values that are not finite")
    difference = mean - other_mean
    product = torch.from_numpy(_root(covariance).T @ _root(other_covariance))
    cross = torch.linalg.svdvals(product).sum().item()
    traces = float(np.trace(covariance) + np.trace(other_covariance))
    return max(float(difference @ difference) + traces - 2 * cross, 0.0)


def _root(covariance: np.ndarray) -> np.ndarray:
    """A factor R ``(D, rank)`` with ``R R^T`` the covariance."""
    values, vectors = torch.linalg.eigh(torch.from_numpy(covariance))
    kept = values > values[-1].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
    return (vectors[:, kept] * values[kept].sqrt()).numpy()
