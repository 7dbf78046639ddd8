"""Decide whether numbers differ: by samples over seeds, by intervals, or by tolerance."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bench.store.schema import ENOUGH_SEEDS

LEVEL = 0.05
ROUNDING = 1e-12


def summarise(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Summarise ``value`` in each group of rows.

    Args:
        rows: rows with ``value``, ``ci_low`` and ``ci_high``, one per seed.
        keys: columns that name a group.

    Returns:
        By ``keys``: ``seeds`` (their number), ``mean``, ``spread`` (standard deviation with n - 1),
        ``low`` and ``high`` (extremes), ``ci_low`` and ``ci_high`` (mean ends of the intervals;
        missing unless every row has an interval).

    >>> rows = pd.DataFrame({"id": [7, 7], "value": [1.0, 3.0]})
    >>> rows[["ci_low", "ci_high"]] = [[0, 2], [2, 4]]
    >>> summarise(rows, ["id"]).loc[7, ["mean", "low", "high", "ci_low", "ci_high"]].tolist()
    [2.0, 1.0, 3.0, 1.0, 3.0]
    """
    groups = rows.groupby(keys, sort=False)
    table = groups["value"].agg(seeds="size", mean="mean", spread="std", low="min", high="max")
    ends = groups[["ci_low", "ci_high"]]
    whole = (ends.count().min(axis=1) == table["seeds"]).to_numpy()
    return table.join(ends.mean()[whole])


def judge(
    over_seeds: pd.DataFrame, matched: pd.DataFrame, tolerance: np.ndarray, gates: np.ndarray
) -> pd.DataFrame:
    """Decide which pairs differ by more than chance and by more than the tolerance.

    With three or more seeds on both sides, Student's t-test decides. Its p-values are adjusted by
    the procedure of Benjamini and Hochberg over all pairs that count, and separately over all pairs
    that do not. With fewer seeds the intervals decide, which must not overlap, and without
    intervals the tolerance alone. docs/gate.md gives the reasons.

    Args:
        over_seeds: summaries of all seeds of both sides, in columns that end in ``_reference`` and
            ``_here``, one row per pair.
        matched: summaries of the seeds that both sides have, or of all seeds if they share none.
        tolerance: relative change that is accepted, ``(pairs,)``.
        gates: True for pairs that count, ``(pairs,)``.

    Returns:
        One row per pair: ``method`` (``seeds``, ``intervals`` or ``tolerance``), ``reference`` and
        ``here`` (means), ``seeds_reference``, ``seeds_here``, the ends of the intervals, ``p``
        (adjusted; missing without a test) and ``differs``.
    """
    ends = [f"{end}_{side}" for side in ("reference", "here") for end in ("ci_low", "ci_high")]
    enough = (over_seeds[["seeds_reference", "seeds_here"]] >= ENOUGH_SEEDS).all(axis=1)
    with_ends = matched[ends].notna().all(axis=1)
    used = over_seeds.where(enough, matched)
    judged = used[["seeds_reference", "seeds_here", *ends]].copy()
    judged["reference"], judged["here"] = used["mean_reference"], used["mean_here"]
    judged["method"] = np.select([enough, with_ends], ["seeds", "intervals"], "tolerance")
    judged["p"] = _p_values(over_seeds, enough.to_numpy(), gates)
    apart = (judged["ci_low_here"] > judged["ci_high_reference"]) | (
        judged["ci_high_here"] < judged["ci_low_reference"]
    )
    # Samples without spread have no p-value: any difference between them is real.
    chance = np.select(
        [judged["method"] == "seeds", judged["method"] == "intervals"],
        [judged["p"].fillna(0) > LEVEL, ~apart],
        False,
    )
    magnitude = judged["reference"].abs()
    change = (judged["here"] - judged["reference"]).abs()
    judged["differs"] = ~chance & (change > (tolerance + ROUNDING) * magnitude)
    return judged


def _p_values(table: pd.DataFrame, enough: np.ndarray, gates: np.ndarray) -> np.ndarray:
    """Return the adjusted p-values of the t-test, NaN where there is nothing to test."""
    tested = enough & ~_flat(table) & ~_identical(table)
    sides = [table.loc[tested, [f"{fact}_{side}" for fact in ("mean", "spread", "seeds")]]
             for side in ("reference", "here")]  # fmt: skip
    statistics: list[Any] = [column for side in sides for column in side.to_numpy(dtype=float).T]
    p_values = np.full(len(table), np.nan)
    p_values[tested] = stats.ttest_ind_from_stats(*statistics, equal_var=True).pvalue
    for family in (tested & gates, tested & ~gates):
        if family.any():
            p_values[family] = stats.false_discovery_control(p_values[family])
    return p_values


def _flat(table: pd.DataFrame) -> np.ndarray:
    """Return True for pairs whose seeds agree on each side, except for rounding."""
    flat = np.ones(len(table), dtype=bool)
    for side in ("reference", "here"):
        low, high = (table[f"{end}_{side}"].to_numpy(dtype=float) for end in ("low", "high"))
        flat &= high - low <= ROUNDING * np.maximum(abs(low), abs(high))
    return flat


def _identical(table: pd.DataFrame) -> np.ndarray:
    """Return True for pairs with the same numbers on both sides."""
    facts = ("seeds", "mean", "spread", "low", "high")
    same = [table[f"{fact}_reference"] == table[f"{fact}_here"] for fact in facts]
    return np.logical_and.reduce(same)
