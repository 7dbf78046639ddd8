"""How numbers are printed."""

import math
from typing import Any

import pandas as pd

SMALL, LARGE = 1e-3, 1e15


def number(value: Any, digits: int = 4) -> str:
    """A value with ``digits`` significant digits, whole from 1,000 on; "" for a missing one."""
    if pd.isna(value):
        return ""
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if abs(value) < SMALL or abs(value) >= LARGE:
        return f"{value:.{digits - 2}e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def with_interval(value: Any, low: Any, high: Any) -> str:
    """A mean and half of its interval, as many decimals as two digits of that half have.

    The mean alone where there is no interval, or one of no width.
    """
    if pd.isna(value) or pd.isna(low) or pd.isna(high) or low == high:
        return number(value)
    half = (float(high) - float(low)) / 2
    if not 0 < half < LARGE or abs(value) >= LARGE:
        return f"{number(value)} ± {number(half)}"
    decimals = max(0, 1 - math.floor(math.log10(half)))
    if decimals > 6:
        return f"{number(value)} ± {half:.1e}"
    return f"{value:,.{decimals}f} ± {half:,.{decimals}f}"
