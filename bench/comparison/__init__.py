"""The regression gate: two tables of rows in, a verdict for each observation out."""

from bench.comparison.compare import Comparison, compare
from bench.comparison.gauges import declared
from bench.comparison.policy import Gauge, Policy

__all__ = ["Comparison", "Gauge", "Policy", "compare", "declared"]
