"""Find pairs of observations that cannot be compared, and the reasons."""

import pandas as pd

from bench.comparison.pairing import SIDES
from bench.comparison.policy import Policy
from bench.store.schema import ENOUGH_SEEDS, GATE_COMPARABLE_BY, HASHES
from bench.system.formatting import short_hash


def incomparable(rows: pd.DataFrame, policy: Policy) -> pd.Series:
    """Return why observations cannot be compared: the columns that differ, with both values.

    Args:
        rows: rows of both sides, with ``id`` of the observation and ``side``.
        policy: tells which metrics measure the machine; their ``device`` must agree too.

    Returns:
        Reasons by ``id``. Comparable observations have none.
    """
    reasons = [_differing(rows, field) for field in GATE_COMPARABLE_BY]
    machine = [name for name in rows["metric"].unique() if not policy.reproducible(name)]
    reasons.append(_differing(rows[rows["metric"].isin(machine)], "device"))
    few = f", fewer than {ENOUGH_SEEDS} of each"
    reasons.append(_differing(_with_other_seeds(rows), "seed") + few)
    return pd.concat(reasons).groupby(level=0, sort=True).agg("; ".join)


def other_processors(rows: pd.DataFrame) -> pd.Series:
    """Return why observations were computed on different processors: both values.

    An unknown processor counts as another one. The ``device`` must agree too.

    Args:
        rows: rows of both sides, with ``id`` of the observation and ``side``.

    Returns:
        Reasons by ``id``, from the first of the seeds that both sides have and that differ.
    """
    sides = [rows[rows["side"] == side] for side in SIDES]
    pairs = sides[0].merge(sides[1], on=["id", "seed"], suffixes=[f"_{side}" for side in SIDES])
    reasons = []
    for field in ("processor", "device"):
        before, here = (pairs[f"{field}_{side}"].astype(object) for side in SIDES)
        differs = before.fillna("") != here.fillna("")
        if field == "processor":
            differs |= before.isna() | here.isna()
        before, here = before.fillna("unknown"), here.fillna("unknown")
        texts = field + ": " + before + " in the reference, " + here + " here"
        reasons.append(texts[differs].set_axis(pairs.loc[differs, "id"]))
    first = [each[~each.index.duplicated()] for each in reasons]
    return pd.concat(first).groupby(level=0, sort=True).agg("; ".join)


def _with_other_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows of observations with no seed in common and too few seeds for a test.

    The interval of a row is about other images, so it says nothing about other seeds.
    """
    shared = rows.loc[rows.duplicated(["id", "seed"], keep=False), "id"]
    seeds = rows.groupby(["id", "side"])["seed"].size().groupby(level="id").min()
    few = seeds[seeds < ENOUGH_SEEDS].index
    return rows[rows["id"].isin(few) & ~rows["id"].isin(shared)]


def _differing(rows: pd.DataFrame, field: str) -> pd.Series:
    """Return ``field: A in the reference, B here`` by ``id``, where the two sides differ."""
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
        text = text.map(short_hash)
    return rows["protocol"] + " (" + text + ")" if field == "protocol_hash" else text
