"""Metrics without values: what failed here, and what the reference has and this run has not."""

from typing import Any

import pandas as pd

from bench.comparison.pairing import CELL
from bench.comparison.policy import Policy

METRIC = ["pair", "metric"]


def without_values(rows: pd.DataFrame, policy: Policy) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Verdicts on metrics that failed or are gone, and the rows that are left to compare.

    A metric that failed for more seeds than in the reference is worse: a failure is no matter of
    the machine, so it counts whatever the metric. One that the reference has values of and this
    run has none of is missing.

    Args:
        rows: of both sides, with ``pair`` and ``side``.
        policy: what counts.

    Returns:
        One row a metric that failed or is missing; and the rows with values of all others.
    """
    valued = (rows["status"] == "ok") & rows["value"].notna()
    failed = rows["status"] == "failed"
    counts = pd.DataFrame(
        {
            f"{name}_{side}": _seeds(rows[chosen & (rows["side"] == side)])
            for name, chosen in {"ok": valued, "failed": failed, "any": valued | ~valued}.items()
            for side in ("reference", "here")
        }
    ).fillna(0)
    worse = (counts["failed_here"] > counts["failed_reference"]) & (counts["any_reference"] > 0)
    missing = (counts["ok_reference"] > 0) & (counts["ok_here"] == 0) & ~worse
    ours = rows[(rows["side"] == "here") & ~valued]
    verdicts = [
        _verdicts(rows, counts.index[worse], "worse", ours[ours["status"] == "failed"], policy),
        _verdicts(rows, counts.index[missing], "missing", ours, policy),
    ]
    settled = pd.MultiIndex.from_frame(rows[METRIC]).isin(counts.index[worse | missing])
    return pd.concat(verdicts, ignore_index=True), rows[valued & ~settled]


def _seeds(rows: pd.DataFrame) -> pd.Series:
    return rows.groupby(METRIC)["seed"].nunique()


def _verdicts(
    rows: pd.DataFrame, index: pd.Index, verdict: str, ours: pd.DataFrame, policy: Policy
) -> pd.DataFrame:
    """One row a metric, with the reason that the run's first row of it gives."""
    named = rows.drop_duplicates(METRIC).set_index(METRIC)[[*CELL, "unit"]]
    found = named.reindex(index)
    first = ours.drop_duplicates(METRIC).set_index(METRIC)[["status", "reason"]].reindex(index)
    status = first["status"].astype(object).fillna("not in this run")
    said = first["reason"].astype(object)
    found["reason"] = status.str.replace("_", " ") + (": " + said).fillna("")
    found["verdict"] = verdict
    found["gates"] = True
    found = found.reset_index()
    if verdict == "missing":
        found["gates"] = found["metric"].map(lambda name: policy.counts(name)).astype(bool)
    absent: dict[str, Any] = {"split": None, "layer": None, "time_step": pd.NA, "noise_kind": None}
    absent |= {"noise_level": float("nan"), "epoch_selection": None, "method": "status"}
    return found.assign(**absent, reference=float("nan"), here=float("nan"))
