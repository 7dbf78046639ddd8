"""Verdicts in words."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd


def explain(found: pd.DataFrame, tolerance: np.ndarray) -> list[str]:
    """The reason of each verdict, from what :func:`bench.comparison.statistics.judge` gives."""
    return list(_reasons(found.itertuples(), tolerance))


def relative_change(reference: float, here: float) -> str:
    """The change in percent of the reference."""
    if here == reference:
        return "no change"
    if reference == 0:
        return "from 0"
    percent = 100 * (here - reference) / abs(reference)
    return f"{percent:+.3g} %" if abs(percent) >= 0.005 else "less than 0.005 %"


def _reasons(rows: Any, tolerance: np.ndarray) -> Iterator[str]:
    for row, allowed in zip(rows, tolerance, strict=True):
        change = relative_change(row.reference, row.here)
        yield f"{change}{_evidence(row)}, tolerance {100 * allowed:.3g} %"


def _evidence(row: Any) -> str:
    if row.method == "seeds":
        seeds = f" over {row.seeds_reference:.0f} and {row.seeds_here:.0f} seeds"
        return seeds + ("" if np.isnan(row.p) else f", adjusted p = {row.p:.2g}")
    if row.method == "intervals":
        return (
            f", intervals [{row.ci_low_reference:.4g}, {row.ci_high_reference:.4g}] and "
            f"[{row.ci_low_here:.4g}, {row.ci_high_here:.4g}]"
        )
    return ""
