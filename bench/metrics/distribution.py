"""Base class of metrics that compare features of generated and of reference images."""

import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from bench.metrics.feature_pairs import FeaturePair
from bench.metrics.metric import Metric, ModelFacts, Observation
from bench.metrics.uncertainty import interval

# Networks of a thousand features or more, by a part of the names of their extractors.
LARGE_NETWORKS = {"inception": "Inception", "dinov2": "DINOv2"}


@dataclass(frozen=True)
class Estimate:
    """An estimated number with its uncertainty.

    Attributes:
        value: the estimate.
        standard_error: standard error of the estimate; None if it is unknown.
        n: number of generated images that the estimate is computed from.
        bounds: 95 % confidence interval; None for the value ± 1.96 standard errors.
    """

    value: float
    standard_error: float | None
    n: int
    bounds: tuple[float, float] | None = None


class DistributionMetric(Metric):
    """A metric with one extractor and one value, computed from features of all generated images.

    Subclasses write :meth:`estimate`. The 95 % confidence interval is the value ± 1.96 standard
    errors, unless the estimate has bounds of its own.

    Attributes:
        of_moments: True if only mean and covariance of the reference are compared, so that given
            reference statistics replace the reference images.
        splits: splits of the dataset whose features are read; None for the reference images.
    """

    unit = "1"
    of_moments: ClassVar[bool] = False
    splits: ClassVar[tuple[str, ...] | None] = None
    needs = frozenset({"features"})

    def inapplicable(self) -> str | None:
        """Return why the protocol has too few images for features of a large network, or None."""
        n, least = self.protocol.generated_images, self.protocol.inception_minimum_images
        large = [
            label
            for part, label in LARGE_NETWORKS.items()
            if any(part in extractor for extractor in self.extractors)
        ]
        if n >= least or not large:
            return None
        return (
            f"{n} generated images, but metrics of {large[0]} features need at least {least} "
            "(inception_minimum_images)"
        )

    @abstractmethod
    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """Return the estimate, or the reason why there is none."""

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation, with an interval if the standard error is known."""
        assert facts.generated is not None
        pair = facts.generated.pair(self.extractors[0])
        estimate = self.estimate(pair)
        row = Observation(
            None,
            n=len(pair.generated.pool),
            split="generated",
            extractor=pair.reference_description if self.of_moments else pair.extractor.description,
            extractor_sha256=pair.extractor.sha256,
        )
        if isinstance(estimate, str):
            yield replace(row, status="not_applicable", reason=estimate)
        else:
            yield _with_estimate(row, estimate)


def counts(pair: FeaturePair) -> str:
    """Return the numbers of images as the beginning of a reason."""
    n, m = len(pair.generated.pool), pair.reference_count
    return f"{n} generated and {m} reference images: "


def mean_with_error(values: np.ndarray, n: int) -> Estimate:
    """Return the mean of independent values with its standard error.

    Args:
        values: float64 ``(V,)``, one value per image or per split.
        n: number of generated images.

    Returns:
        The mean and ``s / sqrt(V)``, s being the unbiased standard deviation; a standard error of
        None if all values are equal.

    >>> estimate = mean_with_error(np.array([1.0, 2.0, 3.0, 2.0]), n=4)
    >>> estimate.value, round(estimate.standard_error, 3)
    (2.0, 0.408)
    """
    error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
    return Estimate(float(values.mean()), error or None, n)


def _with_estimate(row: Observation, estimate: Estimate) -> Observation:
    low, high = estimate.bounds or (None, None)
    if estimate.bounds is None and estimate.standard_error is not None:
        low, high = interval(estimate.value, estimate.standard_error)
    return replace(row, value=estimate.value, n=estimate.n, ci_low=low, ci_high=high)
