"""Whether two sets of numbers differ: by samples over seeds, by intervals, by tolerance."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bench.comparison.policy import ENOUGH_SEEDS

LEVEL = 0.05
ROUNDING = 1e-12


def summarise(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Mean, spread, extremes and mean interval of ``value`` in each group of rows.

    Returns:
        By ``keys``: ``seeds``, ``mean``, ``spread`` (with n - 1), ``low``, ``high``, ``ci_low`` and
        ``ci_high``; the last two are missing unless every row has an interval.
    """
    groups = rows.groupby(keys, sort=False)
    table = groups["value"].agg(seeds="size", mean="mean", spread="std", low="min", high="max")
    ends = groups[["ci_low", "ci_high"]]
    whole = (ends.count().min(axis=1) == table["seeds"]).to_numpy()
    return table.join(ends.mean()[whole])


def judge(
    over_seeds: pd.DataFrame, matched: pd.DataFrame, tolerance: np.ndarray, gates: np.ndarray
) -> pd.DataFrame:
    """Which pairs differ by more than chance and more than the tolerance.

    With three seeds or more on both sides Student's t-test decides, its p-values adjusted by
    Benjamini and Hochberg's procedure over all pairs that gate (those that do not: among
    themselves). Else the intervals decide, which must not overlap, and where there are none the
    tolerance alone. See docs/gate.md for the reasons.

    Args:
        over_seeds: both sides' summaries of all seeds, columns ending in ``_reference`` and
            ``_here``.
        matched: the same of the seeds that both sides have, or of all where they share none.
        tolerance: relative change that passes, for each pair.
        gates: whether the pair counts.

    Returns:
        ``method`` (``seeds``, ``intervals`` or ``tolerance``), ``reference`` and ``here`` (means),
        ``seeds_reference``, ``seeds_here``, ``p`` (adjusted, missing where no test was made),
        the intervals' ends and ``differs``, by the index of ``over_seeds``.
    """
    ends = [f"{end}_{side}" for side in ("reference", "here") for end in ("ci_low", "ci_high")]
    enough = (over_seeds[["seeds_reference", "seeds_here"]] >= ENOUGH_SEEDS).all(axis=1)
    with_ends = matched[ends].notna().all(axis=1)
    used = over_seeds.where(enough, matched)
    found = used[["seeds_reference", "seeds_here", *ends]].copy()
    found["reference"], found["here"] = used["mean_reference"], used["mean_here"]
    found["method"] = np.select([enough, with_ends], ["seeds", "intervals"], "tolerance")
    found["p"] = _p_values(over_seeds, enough.to_numpy(), gates)
    apart = (found["ci_low_here"] > found["ci_high_reference"]) | (
        found["ci_high_here"] < found["ci_low_reference"]
    )
    # Samples without any spread have no p-value: what differs there differs for good.
    chance = np.select(
        [found["method"] == "seeds", found["method"] == "intervals"],
        [found["p"].fillna(0) > LEVEL, ~apart],
        False,
    )
    magnitude = found["reference"].abs()
    change = (found["here"] - found["reference"]).abs()
    found["differs"] = ~chance & (change > (tolerance + ROUNDING) * magnitude)
    return found


def _p_values(table: pd.DataFrame, enough: np.ndarray, gates: np.ndarray) -> np.ndarray:
    """Adjusted p-values of the t-test; missing where there is nothing to test."""
    tested = enough & ~_flat(table) & ~_identical(table)
    sides = [table.loc[tested, [f"{fact}_{side}" for fact in ("mean", "spread", "seeds")]]
             for side in ("reference", "here")]  # fmt: skip
    statistics: list[Any] = [column for side in sides for column in side.to_numpy(dtype=float).T]
    found = np.full(len(table), np.nan)
    found[tested] = stats.ttest_ind_from_stats(*statistics, equal_var=True).pvalue
    for family in (tested & gates, tested & ~gates):
        if family.any():
            found[family] = stats.false_discovery_control(found[family])
    return found


def _flat(table: pd.DataFrame) -> np.ndarray:
    """Where no seed differs from another on its side, but for rounding."""
    flat = np.ones(len(table), dtype=bool)
    for side in ("reference", "here"):
        low, high = (table[f"{end}_{side}"].to_numpy(dtype=float) for end in ("low", "high"))
        flat &= high - low <= ROUNDING * np.maximum(abs(low), abs(high))
    return flat


def _identical(table: pd.DataFrame) -> np.ndarray:
    """Where the two sides have the same numbers."""
    facts = ("seeds", "mean", "spread", "low", "high")
    same = [table[f"{fact}_reference"] == table[f"{fact}_here"] for fact in facts]
    return np.logical_and.reduce(same)
