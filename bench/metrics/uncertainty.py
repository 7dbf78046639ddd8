"""How sure a Fréchet distance is: a jackknife over groups, and its limit for infinitely many."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import linregress
from torch import Tensor

from bench.metrics.frechet import Moments, frechet_distance

Z_95 = 1.96
GROUPS = 10
SUBSETS = 15


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

    def without(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of all features but those of group i."""
        return merged(self.groups[:i] + self.groups[i + 1 :])

    def standard_error(self, mean: np.ndarray, covariance: np.ndarray) -> float | None:
        """The delete-a-group jackknife's standard error of :meth:`distance`.

        None where there are fewer feature vectors than groups. The reference counts as known.
        """
        if self.n < len(self.groups):
            return None
        left_out = [
            frechet_distance(*self.without(i), mean, covariance) for i in range(len(self.groups))
        ]
        return jackknife_error(left_out)


def two_sample_error(one: GroupedMoments, other: GroupedMoments) -> float | None:
    """The standard error of the Fréchet distance of two samples, both of them random.

    The jackknife leaves out the same group of both. None where either has fewer feature vectors
    than groups.
    """
    groups = len(one.groups)
    if min(one.n, other.n) < groups:
        return None
    return jackknife_error(
        [frechet_distance(*one.without(i), *other.without(i)) for i in range(groups)]
    )


def jackknife_error(left_out: Sequence[float]) -> float:
    """The standard error of an estimate from its values with each of G groups left out.

    ``sqrt((G - 1) / G * sum_i (x_i - mean x)^2)``, the delete-a-group jackknife (Wolter,
    Introduction to Variance Estimation, chapter 4).
    """
    values = np.asarray(left_out, np.float64)
    return math.sqrt((len(values) - 1) / len(values) * np.square(values - values.mean()).sum())


@dataclass(frozen=True)
class Line:
    """A straight line fitted by least squares, with the standard errors that the fit gives it."""

    intercept: float
    intercept_error: float
    slope: float
    slope_error: float


def line(x: Sequence[float], y: Sequence[float]) -> Line:
    """The line through three or more points."""
    fit = linregress(x, y)
    return Line(
        float(fit.intercept), float(fit.intercept_stderr), float(fit.slope), float(fit.stderr)
    )


def subset_sizes(n: int, smallest_part: int) -> list[int]:
    """Sizes of the subsets to extrapolate from: 15, evenly from ``n // smallest_part`` to n.

    The bias of a Fréchet distance from N images falls as 1/N (Chong and Forsyth,
    arXiv:1911.07023).
    """
    return np.linspace(n // smallest_part, n, SUBSETS).round().astype(int).tolist()
