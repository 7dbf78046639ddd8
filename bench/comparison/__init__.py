"""The regression gate: two tables of rows in, a verdict for each observation out."""

from bench.comparison.compare import Comparison, compare
from bench.comparison.policy import Policy

__all__ = ["Comparison", "Policy", "compare"]
