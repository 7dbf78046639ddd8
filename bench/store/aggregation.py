"""Seeds together: mean, spread and interval of each observation over its cells."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

OBSERVATION = [
    "model",
    "model_version",
    "backend",
    "dataset",
    "dataset_fingerprint",
    "dataset_variant",
    "train_images",
    "protocol",
    "protocol_hash",
    "epoch_selection",
    "split",
    "metric",
    "metric_version",
    "layer",
    "time_step",
    "noise_kind",
    "noise_level",
    "extractor",
    "unit",
    "higher_is_better",
    "device",
]
CONFIDENCE = 0.95


def whole_models(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that hold for whole models: no layer, all time steps, no noise."""
    return rows[rows[["layer", "time_step", "noise_kind"]].isna().all(axis=1)]


def across_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """What ``ok`` rows that differ by their seed alone say together.

    Args:
        rows: as :func:`bench.load_results` gives them.

    Returns:
        One row an observation: the columns that name it, ``seeds`` (how many), ``value`` (their
        mean), ``standard_deviation`` (with n - 1) and ``ci_low``, ``ci_high``, the 95 % interval of
        the mean by Student's t; the last three are missing for a single seed. The interval is of
        training anew, not of the images within a cell, which a row's own interval is of.
    """
    known = rows[rows["status"] == "ok"]
    keys = [key for key in OBSERVATION if key in known]
    groups = known.groupby(keys, dropna=False, sort=False, observed=True)["value"]
    table = groups.agg(seeds="size", value="mean", standard_deviation="std").reset_index()
    return table.join(_interval(table))


def _interval(table: pd.DataFrame) -> pd.DataFrame:
    """``ci_low`` and ``ci_high`` of the means."""
    seeds: Any = table["seeds"].to_numpy(dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = stats.t.ppf((1 + CONFIDENCE) / 2, seeds - 1)
        half = factor * table["standard_deviation"] / np.sqrt(seeds)
    return pd.DataFrame({"ci_low": table["value"] - half, "ci_high": table["value"] + half})
