"""Uncertainty of estimates: intervals, a jackknife over groups, and a line fit against 1/N."""

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
    """Return the 95 % confidence interval of a normally distributed estimate.

    >>> interval(10.0, 1.0)
    (8.04, 11.96)
    """
    return value - Z_95 * standard_error, value + Z_95 * standard_error


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (Wilson 1927), which always contains the share.

    Args:
        successes: number of successes.
        n: number of trials, at least 1.

    >>> low, high = wilson_interval(8, n=10)
    >>> round(low, 3), round(high, 3)
    (0.49, 0.943)
    """
    share, squared = successes / n, Z_95**2
    centre = (share + squared / (2 * n)) / (1 + squared / n)
    spread = math.sqrt(share * (1 - share) / n + squared / (4 * n**2))
    half = Z_95 * spread / (1 + squared / n)
    return max(min(centre - half, share), 0.0), min(max(centre + half, share), 1.0)


def merged(parts: Sequence[Moments]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean ``(D,)`` and unbiased covariance ``(D, D)`` of all parts together.

    Raises:
        ValueError: the parts have fewer than two feature vectors in total.
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
    """Moments of feature vectors in groups, for a delete-a-group jackknife.

    Args:
        groups: number of groups, 10 by default.

    Attributes:
        n: number of feature vectors.
        groups: moments of each group; vector i belongs to group ``i mod len(groups)``.
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
        """Return the Fréchet distance of all features to a reference.

        Args:
            mean: mean ``(D,)`` of the reference.
            covariance: covariance ``(D, D)`` of the reference.

        Raises:
            ValueError: there are fewer than two feature vectors, or a value is not finite.
        """
        return frechet_distance(*merged(self.groups), mean, covariance)

    def without(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return mean ``(D,)`` and covariance ``(D, D)`` of the features outside group i."""
        return merged(self.groups[:i] + self.groups[i + 1 :])

    def standard_error(self, mean: np.ndarray, covariance: np.ndarray) -> float | None:
        """Return the delete-a-group jackknife's standard error of :meth:`distance`.

        Args:
            mean: mean ``(D,)`` of the reference, which is held fixed.
            covariance: covariance ``(D, D)`` of the reference.

        Returns:
            The standard error; None if there are fewer feature vectors than groups.
        """
        if self.n < len(self.groups):
            return None
        left_out = [
            frechet_distance(*self.without(i), mean, covariance) for i in range(len(self.groups))
        ]
        return jackknife_error(left_out)


def two_sample_error(one: GroupedMoments, other: GroupedMoments) -> float | None:
    """Return the standard error of the Fréchet distance between two random samples.

    The jackknife leaves out the same group of both samples. The result is None if one of them has
    fewer feature vectors than groups.
    """
    groups = len(one.groups)
    if min(one.n, other.n) < groups:
        return None
    return jackknife_error(
        [frechet_distance(*one.without(i), *other.without(i)) for i in range(groups)]
    )


def jackknife_error(left_out: Sequence[float]) -> float:
    """Return the standard error of an estimate by the delete-a-group jackknife.

    ``sqrt((G - 1) / G * sum_i (x_i - mean x)^2)`` (Wolter, Introduction to Variance Estimation,
    chapter 4).

    Args:
        left_out: values x_i of the estimate, each computed without one of the G groups.

    >>> round(jackknife_error([1.0, 2.0, 3.0]), 4)
    1.1547
    """
    values = np.asarray(left_out, np.float64)
    return math.sqrt((len(values) - 1) / len(values) * np.square(values - values.mean()).sum())


@dataclass(frozen=True)
class LineFit:
    """A straight line fitted by least squares.

    Attributes:
        intercept: value at x = 0.
        intercept_error: standard error of the intercept.
        slope: change of the value per unit of x.
        slope_error: standard error of the slope.
    """

    intercept: float
    intercept_error: float
    slope: float
    slope_error: float


def fit_line(x: Sequence[float], y: Sequence[float]) -> LineFit:
    """Fit a line to three or more points.

    >>> line = fit_line([1, 2, 4], [3.5, 4.0, 5.0])
    >>> round(line.intercept, 6), round(line.slope, 6)
    (3.0, 0.5)
    """
    fit = linregress(x, y)
    return LineFit(
        float(fit.intercept), float(fit.intercept_stderr), float(fit.slope), float(fit.stderr)
    )


def subset_sizes(n: int, smallest_part: int) -> list[int]:
    """Return the sizes of 15 subsets, evenly spaced from ``n // smallest_part`` to n.

    The bias of a Fréchet distance computed from N images is proportional to 1/N (Chong and Forsyth,
    arXiv:1911.07023), so distances of subsets of these sizes lie on a line against 1/N.

    >>> subset_sizes(280, smallest_part=2)
    [140, 150, 160, 170, 180, 190, 200, 210, 220, 230, 240, 250, 260, 270, 280]
    """
    return np.linspace(n // smallest_part, n, SUBSETS).round().astype(int).tolist()
