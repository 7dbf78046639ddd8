"""The policy of a gate: tolerances, and the metrics that count."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.store.declarations import MetricDeclaration


@dataclass(frozen=True)
class Policy:
    """Tolerances of a gate, and the metrics that count.

    Attributes:
        metrics: declarations by metric name; an unknown metric has the default tolerance.
        strict: True to count single layers and time steps, changes without a direction, and
            incomparable pairs.
        machine: True to count metrics of the machine.
    """

    metrics: Mapping[str, MetricDeclaration] = field(default_factory=dict)
    strict: bool = False
    machine: bool = False

    def tolerance(self, metric: str) -> float:
        """Return the relative change that the gate accepts.

        >>> Policy({"fad": MetricDeclaration(0.1)}).tolerance("fad"), Policy().tolerance("fad")
        (0.1, 0.05)
        """
        return self._declaration(metric).tolerance

    def reproducible(self, metric: str) -> bool:
        """Return False if the metric measures the machine."""
        return self._declaration(metric).reproducible

    def counts(self, metric: str) -> bool:
        """Return True if verdicts on the metric count."""
        return self.machine or self.reproducible(metric)

    def _declaration(self, metric: str) -> MetricDeclaration:
        return self.metrics.get(metric, MetricDeclaration())
