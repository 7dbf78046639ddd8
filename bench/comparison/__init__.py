"""The regression gate: two tables of rows in, a verdict for each observation out."""

from bench.comparison.compare import Comparison, compare
from bench.comparison.policy import Gauge, Policy
from bench.comparison.tolerances import declared

__all__ = ["Comparison", "Gauge", "Policy", "compare", "declared"]
