"""What a gate takes for a change that matters."""

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_TOLERANCE = 0.05
ENOUGH_SEEDS = 3


@dataclass(frozen=True)
class Gauge:
    """What a metric declares for the gate.

    Attributes:
        tolerance: relative change that passes.
        reproducible: False if it measures the machine and so differs from run to run.
    """

    tolerance: float = DEFAULT_TOLERANCE
    reproducible: bool = True


@dataclass(frozen=True)
class Policy:
    """What counts, and how much.

    Attributes:
        gauges: by metric name; an unknown metric gets ``Gauge()``.
        strict: whether single layers and time steps, changes without a direction and incomparable
            pairs count too.
        machine: whether metrics of the machine count too.
    """

    gauges: Mapping[str, Gauge] = field(default_factory=dict)
    strict: bool = False
    machine: bool = False

    def gauge(self, metric: str) -> Gauge:
        """What the metric declares, or the default."""
        return self.gauges.get(metric, Gauge())

    def counts(self, metric: str) -> bool:
        """Whether verdicts on the metric count: not those on the machine, unless asked for."""
        return self.machine or self.gauge(metric).reproducible
