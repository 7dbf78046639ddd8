"""Explain verdicts in words."""

from typing import Any

import numpy as np
import pandas as pd

from bench.system.formatting import number


def explain(judged: pd.DataFrame, tolerance: np.ndarray) -> list[str]:
    """Return the reason of each verdict: the change, the evidence and the tolerance.

    Args:
        judged: table of :func:`bench.comparison.statistics.judge`, one row per observation.
        tolerance: relative change that the gate accepts, ``(observations,)``.
    """
    rows: Any = judged.itertuples()
    return [
        f"{relative_change(row.reference, row.here)}{_evidence(row)}, "
        f"tolerance {100 * allowed:.3g} %"
        for row, allowed in zip(rows, tolerance, strict=True)
    ]


def relative_change(reference: float, here: float) -> str:
    """Return a change in percent of the reference, as text.

    >>> relative_change(2.0, 2.5), relative_change(2.0, 2.0), relative_change(0.0, 1.0)
    ('+25 %', 'no change', 'from 0')
    """
    if here == reference:
        return "no change"
    if reference == 0:
        return "from 0"
    percent = 100 * (here - reference) / abs(reference)
    return f"{percent:+.3g} %" if abs(percent) >= 0.005 else "less than 0.005 %"


def _evidence(row: Any) -> str:
    if row.method == "seeds":
        seeds = f" over {row.seeds_reference:.0f} and {row.seeds_here:.0f} seeds"
        return seeds + ("" if np.isnan(row.p) else f", adjusted p = {row.p:.2g}")
    if row.method == "intervals":
        return (
            f", intervals [{number(row.ci_low_reference)}, {number(row.ci_high_reference)}] and "
            f"[{number(row.ci_low_here)}, {number(row.ci_high_here)}]"
        )
    return ""
