"""Which pairs of observations cannot be compared, and why."""

import pandas as pd

from bench.comparison.policy import ENOUGH_SEEDS, Policy

FIELDS = (
    "protocol_hash",
    "dataset_fingerprint",
    "train_images",
    "n",
    "extractor",
    "extractor_sha256",
    "metric_version",
    "unit",
    "higher_is_better",
)
HASHES = ("protocol_hash", "dataset_fingerprint", "extractor_sha256")
SHOWN_DIGITS = 12


def incomparable(rows: pd.DataFrame, policy: Policy) -> pd.Series:
    """Why observations cannot be compared: which fields differ, with both values.

    Args:
        rows: of both sides, with ``id`` of the observation and ``side``.
        policy: says which metrics measure the machine; these need the same ``device`` too.

    Returns:
        Reasons by ``id``; comparable observations have none.
    """
    reasons = [_differing(rows, field) for field in FIELDS]
    machine = [name for name in rows["metric"].unique() if not policy.gauge(name).reproducible]
    reasons.append(_differing(rows[rows["metric"].isin(machine)], "device"))
    few = f", fewer than {ENOUGH_SEEDS} of each"
    reasons.append(_differing(_of_other_seeds(rows), "seed") + few)
    return pd.concat(reasons).groupby(level=0, sort=True).agg("; ".join)


def _of_other_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of observations with no seed in common and too few seeds to tell chance from change.

    An interval within a cell is of the images: it does not cover training anew.
    """
    shared = rows.loc[rows.duplicated(["id", "seed"], keep=False), "id"]
    seeds = rows.groupby(["id", "side"])["seed"].size().groupby(level="id").min()
    few = seeds[seeds < ENOUGH_SEEDS].index
    return rows[rows["id"].isin(few) & ~rows["id"].isin(shared)]


def _differing(rows: pd.DataFrame, field: str) -> pd.Series:
    values = rows[["id", "side", field]].drop_duplicates()
    alone = ~values.duplicated(["id", field], keep=False)
    values = values[values["id"].isin(values.loc[alone, "id"])]
    if values.empty:
        return pd.Series(dtype=object)
    shown = _shown(rows.loc[values.index], field)
    keys = [values["id"], values["side"]]
    if values.duplicated(["id", "side"]).any():
        shown = shown.groupby(keys).agg(" and ".join)
    else:
        shown = shown.set_axis(pd.MultiIndex.from_arrays(keys))
    sides = shown.unstack()
    return field + ": " + sides["reference"] + " in the reference, " + sides["here"] + " here"


def _shown(rows: pd.DataFrame, field: str) -> pd.Series:
    text = rows[field].astype("string").fillna("none").astype(object)
    if field in HASHES:
        text = text.str[:SHOWN_DIGITS]
    return rows["protocol"] + " (" + text + ")" if field == "protocol_hash" else text
