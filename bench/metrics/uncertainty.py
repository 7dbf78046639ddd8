"""How sure a Fréchet distance is: a jackknife over groups, and its limit for infinitely many."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.metrics.frechet import Moments, frechet_distance, moments

Z_95 = 1.96
GROUPS = 10
SUBSETS = 15
SUBSET_SEED = 0


def interval(value: float, standard_error: float) -> tuple[float, float]:
    """The 95 % confidence interval of a normally distributed estimate."""
    return value - Z_95 * standard_error, value + Z_95 * standard_error


def merged(parts: Sequence[Moments]) -> tuple[np.ndarray, np.ndarray]:
    """Mean ``(D,)`` and unbiased covariance ``(D, D)`` of all that the parts have seen.

    Raises:
        ValueError: fewer than two feature vectors.
    """
    filled = [part for part in parts if part.n]
    n = sum(part.n for part in filled)
    if n < 2:
        raise ValueError(f"a covariance needs at least 2 images, got {n}")
    weights = np.array([part.n / n for part in filled])
    means = np.stack([part.mean for part in filled])
    mean = weights @ means
    shifts = means - mean
    scatter = shifts.T @ (shifts * (weights * n)[:, None])
    for part in filled:
        if part.n > 1:
            scatter = scatter + part.covariance * (part.n - 1)
    return mean, scatter / (n - 1)


class GroupedMoments:
    """Moments of features dealt out in turn to groups, for a delete-a-group jackknife.

    Attributes:
        n: how many feature vectors.
        groups: the moments of each group; vector i is in group i mod ``len(groups)``.
    """

    def __init__(self, groups: int = GROUPS) -> None:
        self.n = 0
        self.groups = [Moments() for _ in range(groups)]

    def update(self, features: Tensor) -> None:
        """Add features ``(N, D)``."""
        for i, group in enumerate(self.groups):
            group.update(features[(i - self.n) % len(self.groups) :: len(self.groups)])
        self.n += len(features)

    def distance(self, mean: np.ndarray, covariance: np.ndarray) -> float:
        """The Fréchet distance of all features to the reference of these moments.

        Raises:
            ValueError: fewer than two feature vectors, or values that are not finite.
        """
        return frechet_distance(*merged(self.groups), mean, covariance)

    def standard_error(self, mean: np.ndarray, covariance: np.ndarray) -> float | None:
        """The delete-a-group jackknife's standard error of :meth:`distance`.

        None where there are fewer feature vectors than groups. The reference counts as known.
        """
        if self.n < len(self.groups):
            return None
        left_out = [
            frechet_distance(*merged(self.groups[:i] + self.groups[i + 1 :]), mean, covariance)
            for i in range(len(self.groups))
        ]
        return jackknife_error(left_out)


def jackknife_error(left_out: Sequence[float]) -> float:
    """The standard error of an estimate from its values with each of G groups left out.

    ``sqrt((G - 1) / G * sum_i (x_i - mean x)^2)``, the delete-a-group jackknife (Wolter,
    Introduction to Variance Estimation, chapter 4).
    """
    values = np.asarray(left_out, np.float64)
    return math.sqrt((len(values) - 1) / len(values) * np.square(values - values.mean()).sum())


@dataclass(frozen=True)
class Extrapolation:
    """A line's value at 0, and the standard error that the fit gives it."""

    value: float
    standard_error: float


def extrapolate(sizes: Sequence[int], distances: Sequence[float]) -> Extrapolation:
    """The limit for infinitely many images: least squares of the distance against ``1 / size``.

    The bias of a Fréchet distance from N images falls as 1/N (Chong and Forsyth,
    arXiv:1911.07023).

    Raises:
        ValueError: fewer than three sizes.
    """
    if len(sizes) < 3:
        raise ValueError(f"a line with an error needs at least 3 sizes, got {len(sizes)}")
    x, y = 1 / np.asarray(sizes, np.float64), np.asarray(distances, np.float64)
    centred = x - x.mean()
    spread = np.square(centred).sum()
    slope = centred @ y / spread
    intercept = y.mean() - slope * x.mean()
    variance = np.square(y - intercept - slope * x).sum() / (len(x) - 2)
    error = math.sqrt(variance * (1 / len(x) + x.mean() ** 2 / spread))
    return Extrapolation(float(intercept), error)


def subset_sizes(n: int) -> list[int]:
    """Sizes of the subsets to extrapolate from: 15, evenly from a quarter of N to N."""
    return np.linspace(n // 4, n, SUBSETS).round().astype(int).tolist()


def infinite_distance(
    features: Tensor, mean: np.ndarray, covariance: np.ndarray, sizes: Sequence[int]
) -> Extrapolation:
    """The Fréchet distance to a reference, extrapolated to infinitely many features.

    Args:
        features: ``(N, D)``.
        mean: of the reference, ``(D,)``.
        covariance: of the reference, ``(D, D)``.
        sizes: of the subsets, each drawn without replacement with a fixed seed.

    Raises:
        ValueError: fewer than three sizes, or values that are not finite.
    """
    generator = torch.Generator().manual_seed(SUBSET_SEED)
    distances = []
    for size in sizes:
        drawn = moments(features[torch.randperm(len(features), generator=generator)[:size]])
        distances.append(frechet_distance(drawn.mean, drawn.covariance, mean, covariance))
    return extrapolate(sizes, distances)
