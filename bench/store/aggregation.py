"""Means over seeds, with their standard deviations and confidence intervals."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from bench.store.schema import MODEL, OBSERVATION, OK, PARTS, Bounds

CONFIDENCE = 0.95


def of_models(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of models, without the rows of trained extractors."""
    return rows[rows["kind"] == MODEL]


def whole_models(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows about whole models: no single layer or time step, no noise."""
    rows = of_models(rows)
    return rows[rows[list(PARTS)].isna().all(axis=1)]


def across_seeds(
    rows: pd.DataFrame, bounds: Mapping[str, Bounds] | None = None, apart: Iterable[str] = ()
) -> pd.DataFrame:
    """Average ``ok`` rows that differ only by their seed.

    Args:
        rows: rows of a run, as :func:`bench.load_results` returns them.
        bounds: smallest and largest possible value by metric name; intervals end there.
        apart: further columns in which rows of one observation agree; they are kept.

    Returns:
        One row per observation: the columns that identify it, then ``seeds`` (their number),
        ``value`` (the mean), ``standard_deviation`` (with n - 1), ``ci_low`` and ``ci_high`` (95 %
        interval of the mean, Student's t). A single seed has no standard deviation and no interval.
        The interval is about training with other seeds; the interval of a row is about other
        images.

    >>> from bench.store.run_directory import frame
    >>> row = {"model": "esvae", "metric": "fad", "status": "ok"}
    >>> table = across_seeds(frame([row | {"value": 1.0}, row | {"value": 3.0}]))
    >>> table[["seeds", "value", "standard_deviation"]].round(2).values.tolist()
    [[2.0, 2.0, 1.41]]
    """
    known = rows[rows["status"] == OK]
    keys = [*apart, *(key for key in OBSERVATION if key in known)]
    groups = known.groupby(keys, dropna=False, sort=False, observed=True)["value"]
    table = groups.agg(seeds="size", value="mean", standard_deviation="std").reset_index()
    table = table.join(_interval(table))
    if bounds:
        table["ci_low"] = table["ci_low"].clip(lower=_limits(table, bounds, 0))
        table["ci_high"] = table["ci_high"].clip(upper=_limits(table, bounds, 1))
    return table


def _limits(table: pd.DataFrame, bounds: Mapping[str, Bounds], end: int) -> "pd.Series[float]":
    """Return the smallest (0) or largest (1) possible value of each row, NaN if there is none."""
    return table["metric"].map({name: each[end] for name, each in bounds.items()}).astype(float)


def _interval(table: pd.DataFrame) -> pd.DataFrame:
    """Return ``ci_low`` and ``ci_high`` of the means."""
    seeds: Any = table["seeds"].to_numpy(dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = stdtrit(seeds - 1, (1 + CONFIDENCE) / 2)
        half = factor * table["standard_deviation"] / np.sqrt(seeds)
    return pd.DataFrame({"ci_low": table["value"] - half, "ci_high": table["value"] + half})
