"""The best model by each metric, and whether its lead is more than chance."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd

from bench.store.schema import ENOUGH_SEEDS

LEVEL = 0.05
ROUNDING = 1e-12
Method = Literal["seeds", "intervals", "exact", "none"]
"""How two models are compared: by a test over seeds, by intervals over images, as numbers that are
not estimates, or not at all."""


@dataclass(frozen=True)
class Best:
    """The best model by one metric.

    Attributes:
        model: name of the model whose mean is best.
        equals: names of the models of which none is worse with certainty; empty if the best model
            is better than every other one.
        methods: how the best model was compared with the others.
    """

    model: str
    equals: tuple[str, ...]
    methods: frozenset[Method]


def best_models(values: pd.DataFrame) -> tuple[dict[str, Best], int]:
    """Return the best model by each metric that has a direction and values of several models.

    Two models with three or more seeds each are compared by Welch's t-test. Its p-values are
    adjusted by the procedure of Benjamini and Hochberg over all pairs of models and all metrics.
    With fewer seeds, intervals decide, which must not overlap. Numbers that are not estimated from
    images, such as a number of parameters, differ if they are not equal.

    Args:
        values: one row per metric, model and seed, with the columns ``metric``, ``name`` (of the
            model), ``seed``, ``value``, ``ci_low``, ``ci_high``, ``n`` and ``higher_is_better``.

    Returns:
        The best model by metric, and the number of t-tests that were corrected for.
    """
    judged = _judged(values)
    found = {}
    for metric, group in values.groupby("metric", sort=False):
        up = group["higher_is_better"].iloc[0]
        means = group.groupby("name", sort=False)["value"].mean()
        if pd.isna(up) or len(means) < 2:
            continue
        best = str(means.idxmax() if up else means.idxmin())
        own = [pair for pair in judged if pair.metric == metric and best in pair.names]
        equals = tuple(_other(pair, best) for pair in own if not pair.differs)
        found[str(metric)] = Best(best, equals, frozenset(pair.method for pair in own))
    return found, sum(pair.method == "seeds" for pair in judged)


@dataclass
class _Pair:
    """Two models under one metric.

    Attributes:
        metric: name of the metric.
        names: names of the models.
        samples: values of each model, one row per seed.
        method: how they are compared.
        differs: True if they differ by more than chance.
    """

    metric: str
    names: tuple[str, str]
    samples: tuple[pd.DataFrame, pd.DataFrame]
    method: Method
    differs: bool


def _pairs(values: pd.DataFrame) -> Iterator[_Pair]:
    """Yield all pairs of models under each metric that has a direction."""
    directed = values[values["higher_is_better"].notna()]
    for metric, group in directed.groupby("metric", sort=False):
        by_name = [(str(name), rows) for name, rows in group.groupby("name", sort=False)]
        for (one, first), (other, second) in combinations(by_name, 2):
            method, differs = _compared(first, second)
            yield _Pair(str(metric), (one, other), (first, second), method, differs)


def _compared(first: pd.DataFrame, second: pd.DataFrame) -> tuple[Method, bool]:
    """Return how two models are compared, and the result unless a t-test decides."""
    if first["n"].isna().all() and second["n"].isna().all():
        return "exact", not _equal(first, second)
    if min(len(first), len(second)) >= ENOUGH_SEEDS:
        return "seeds", False
    low, high = (
        [part[end].mean(skipna=False) for part in (first, second)] for end in ("ci_low", "ci_high")
    )
    if np.isnan([*low, *high]).any():
        return "none", False
    return "intervals", bool(max(low) > min(high))


def _equal(first: pd.DataFrame, second: pd.DataFrame) -> bool:
    """Return True if two means are equal up to rounding."""
    one, other = first["value"].mean(), second["value"].mean()
    return bool(abs(one - other) <= ROUNDING * max(abs(one), abs(other)))


def _judged(values: pd.DataFrame) -> list[_Pair]:
    """Return all pairs, those with enough seeds decided by corrected t-tests."""
    pairs = list(_pairs(values))
    tested = [pair for pair in pairs if pair.method == "seeds"]
    if not tested:
        return pairs
    # Only runs of several seeds wait for this import, which takes a second.
    from scipy import stats

    sides = [
        [
            np.array([f(pair.samples[side]["value"]) for pair in tested])
            for f in (np.mean, partial(np.std, ddof=1), len)
        ]
        for side in (0, 1)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Any = stats.ttest_ind_from_stats(*sides[0], *sides[1], equal_var=False)
    # Samples without spread have no p-value: any difference between them is real.
    flat = [float(_equal(*pair.samples)) for pair in tested]
    p_values = np.where(np.isnan(found.pvalue), flat, found.pvalue)
    for pair, p in zip(tested, stats.false_discovery_control(p_values), strict=True):
        pair.differs = bool(p <= LEVEL)
    return pairs


def _other(pair: _Pair, name: str) -> str:
    return pair.names[1] if pair.names[0] == name else pair.names[0]
