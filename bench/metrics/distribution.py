"""What metrics of generated images against a reference share: one number of a pair, one row."""

import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from bench.metrics.feature_pairs import FeaturePair
from bench.metrics.metric import Metric, ModelFacts, Observation
from bench.metrics.uncertainty import interval


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error, None where there is none, and how many images it is of."""

    value: float
    standard_error: float | None
    n: int


class DistributionMetric(Metric):
    """One number about the features that its one extractor finds in all generated images.

    The 95 % confidence interval is the value and 1.96 standard errors either side.
    """

    unit = "1"
    needs = frozenset({"features"})

    def inapplicable(self) -> str | None:
        """Too few images for Inception's 2,048 features, by the protocol."""
        n, least = self.protocol.generated_images, self.protocol.inception_minimum_images
        if n >= least or not any("inception" in name for name in self.extractors):
            return None
        return f"{n} generated images, of which Inception's features need {least} (protocol)"

    @abstractmethod
    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """The number, or why there can be none."""

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """One observation, with its interval where there is a standard error."""
        assert facts.generated is not None
        pair = facts.generated.pair(self.extractors[0])
        found = self.estimate(pair)
        row = Observation(
            None,
            n=len(pair.generated.pool),
            split="generated",
            extractor=pair.extractor.description,
            extractor_sha256=pair.extractor.sha256,
        )
        yield _not_applicable(row, found) if isinstance(found, str) else _filled(row, found)


def counts(pair: FeaturePair) -> str:
    """How many images a side, in words that begin a reason."""
    n, m = len(pair.generated.pool), pair.reference_count
    return f"{n} generated and {m} reference images: "


def mean_with_error(values: np.ndarray, n: int) -> Estimate:
    """The mean of independent values and its standard error, None where all are the same."""
    error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
    return Estimate(float(values.mean()), error or None, n)


def _filled(row: Observation, found: Estimate) -> Observation:
    low, high = None, None
    if found.standard_error is not None:
        low, high = interval(found.value, found.standard_error)
    return replace(row, value=found.value, n=found.n, ci_low=low, ci_high=high)


def _not_applicable(row: Observation, reason: str) -> Observation:
    return replace(row, status="not_applicable", reason=reason)
