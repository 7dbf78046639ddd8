"""Judge metrics without values: failures, and metrics that only the reference has."""

from typing import Any

import pandas as pd

from bench.comparison.policy import Policy
from bench.store.schema import CELL, FAILED, OK

METRIC = ["pair", "metric"]


def without_values(rows: pd.DataFrame, policy: Policy) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judge metrics that failed or are missing, and return the rows that are left to compare.

    A metric that failed for more seeds than in the reference is worse, and this counts even for
    metrics of the machine. A metric is missing if only the reference has values of it.

    Args:
        rows: rows of both sides, with ``pair`` and ``side``.
        policy: what counts.

    Returns:
        One row per metric that failed or is missing, and the rows with values of the other metrics.
    """
    valued = (rows["status"] == OK) & rows["value"].notna()
    counts = _counts(rows, valued)
    worse = (counts["failed_here"] > counts["failed_reference"]) & (counts["any_reference"] > 0)
    missing = (counts["ok_reference"] > 0) & (counts["ok_here"] == 0) & ~worse
    ours = rows[(rows["side"] == "here") & ~valued]
    failures = _verdicts(rows, counts.index[worse], ours[ours["status"] == FAILED])
    losses = _verdicts(rows, counts.index[missing], ours)
    verdicts = [
        failures.assign(verdict="worse", gates=True),
        losses.assign(verdict="missing", gates=losses["metric"].map(policy.counts).astype(bool)),
    ]
    settled = pd.MultiIndex.from_frame(rows[METRIC]).isin(counts.index[worse | missing])
    return pd.concat(verdicts, ignore_index=True), rows[valued & ~settled]


def _counts(rows: pd.DataFrame, valued: "pd.Series[bool]") -> pd.DataFrame:
    """Return, by pair and metric, the seeds of each side with values, failures and any rows."""
    chosen = {"ok": valued, "failed": rows["status"] == FAILED, "any": rows["status"].notna()}
    return pd.DataFrame(
        {
            f"{name}_{side}": _seeds(rows[which & (rows["side"] == side)])
            for name, which in chosen.items()
            for side in ("reference", "here")
        }
    ).fillna(0)


def _seeds(rows: pd.DataFrame) -> pd.Series:
    return rows.groupby(METRIC)["seed"].nunique()


def _verdicts(rows: pd.DataFrame, index: pd.Index, ours: pd.DataFrame) -> pd.DataFrame:
    """Return one row per metric in ``index``, with the reason in the run's first row of it."""
    named = rows.drop_duplicates(METRIC).set_index(METRIC)[[*CELL, "unit"]].reindex(index)
    first = ours.drop_duplicates(METRIC).set_index(METRIC)[["status", "reason"]].reindex(index)
    status = first["status"].astype(object).fillna("not in this run")
    details = (": " + first["reason"].astype(object)).fillna("")
    named["reason"] = status.str.replace("_", " ") + details
    absent: dict[str, Any] = {"split": None, "layer": None, "time_step": pd.NA, "noise_kind": None}
    absent |= {"noise_level": float("nan"), "epoch_selection": None, "method": "status"}
    return named.reset_index().assign(**absent, reference=float("nan"), here=float("nan"))
