"""Tables of papers: what they print, beside what a run measured.

``paper_table`` returns a tidy frame; ``bench.report.papers.rendering`` formats it as text.
"""

import os
from collections.abc import Hashable, Iterator
from typing import Any

import pandas as pd

from bench.report.papers.agreement import command, differences, worth_running
from bench.report.papers.published import ANSWERS, Answer, published
from bench.report.papers.rendering import FORMATS, render
from bench.store.aggregation import across_seeds, whole_models

__all__ = ["COLUMNS", "FORMATS", "paper_table", "render"]

COLUMNS = {
    "table": "string",
    "dataset": "string",
    "model": "string",
    "model_family": "string",
    "metric": "string",
    "published": "float64",
    "printed": "string",
    "answered_by": "string",
    "backend": "string",
    "status": "string",
    "seeds": "Int64",
    "mean": "float64",
    "standard_deviation": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "images": "Int64",
    "difference": "float64",
    "relative_difference": "float64",
    "done_right": "string",
    "done_right_mean": "float64",
    "done_right_standard_deviation": "float64",
    "done_right_ci_low": "float64",
    "done_right_ci_high": "float64",
    "same_protocol": "boolean",
    "differs": "string",
    "reason": "string",
    "command": "string",
    "protocol": "string",
    "protocol_hash": "string",
    "dataset_variant": "string",
    "epoch_selection": "string",
    "extractor": "string",
    "device": "string",
    "source": "string",
    "note": "string",
}
SAME_CELL = [
    "model_version",
    "backend",
    "dataset_fingerprint",
    "dataset_variant",
    "protocol",
    "protocol_hash",
    "device",
]
SAME_MEASUREMENT = ["metric_version", "extractor", "epoch_selection", "n"]

Record = dict[str, Any]


def paper_table(name: str, rows: pd.DataFrame, out: str | os.PathLike[str] = "DIR") -> pd.DataFrame:
    """A paper's table, with ours beside each published number.

    Args:
        name: of the table, see :func:`bench.report.papers.published.published_tables`.
        rows: of a run, as :func:`bench.load_results` gives them.
        out: the run directory, for the commands that fill missing cells.

    Returns:
        ``COLUMNS``: one row a published number, several where the run has it on several backends,
        protocols or devices. ``status`` is ``ok``, ``failed``, ``skipped``, ``not_applicable``,
        ``missing`` (see ``command``) or ``published_only`` (no protocol of the suite is made after
        it). ``mean``, ``standard_deviation`` and the 95 % interval are over seeds; ``difference``
        is ours minus the published value, ``relative_difference`` that over the published value;
        ``done_right_mean`` and so on are those of the metric ``done_right``. ``same_protocol`` is
        false where ``differs`` says in words what does not agree.

    Raises:
        UnknownNameError: no such table.
    """
    whole = whole_models(rows)
    records = [
        {"table": name, **record}
        for number in published(name).to_dict("records")
        for record in _records(number, whole, os.fspath(out))
    ]
    return pd.DataFrame.from_records(records).reindex(columns=list(COLUMNS)).astype(COLUMNS)


def _records(number: dict[Hashable, Any], rows: pd.DataFrame, out: str) -> Iterator[Record]:
    answer = ANSWERS[number["metric"]]
    record: Record = {
        **{key: number[key] for key in ("dataset", "model", "model_family", "metric")},
        "published": number["value"],
        "printed": number["printed"],
        "answered_by": answer.name,
        "done_right": answer.done_right,
        "source": number["source"],
        "note": number["note"] or None,
    }
    ours = rows[(rows["model"] == number["model"]) & (rows["dataset"] == number["dataset"])]
    ours = ours[ours["metric"].isin({*answer.metrics, answer.done_right})]
    if ours.empty:
        status = "missing" if number["protocol"] else "published_only"
        yield {**record, "status": status, "command": command(number, None, out)}
        return
    for _, cells in ours.groupby(SAME_CELL, dropna=False, sort=False):
        for found in _measured(cells, answer):
            found |= _compared(number, answer, found)
            if worth_running(number, found, ours):
                found["command"] = command(number, found["backend"], out)
            yield {**record, **found}


def _measured(cells: pd.DataFrame, answer: Answer) -> Iterator[Record]:
    """What cells that differ by their seed alone say, or why they say nothing."""
    rows = _added_up(_of_split(cells[cells["metric"].isin(answer.metrics)], answer), answer)
    right = cells[(cells["metric"] == answer.done_right) & (cells["status"] == "ok")]
    first = cells.iloc[0]
    common: Record = {**{key: first[key] for key in SAME_CELL}, **_done_right(right)}
    good, bad = rows[rows["status"] == "ok"], rows[rows["status"] != "ok"]
    if good.empty:
        yield {**common, "status": _worst(bad), "reason": "; ".join(_reasons(bad)) or None}
    for _, same in good.groupby(SAME_MEASUREMENT, dropna=False, sort=False):
        for seeds in across_seeds(same).to_dict("records"):
            yield {
                **common,
                **{key: seeds[key] for key in ("seeds", "standard_deviation", "ci_low", "ci_high")},
                **{key: same.iloc[0][key] for key in ("epoch_selection", "extractor")},
                "mean": seeds["value"],
                "images": same.iloc[0]["n"],
                "status": "ok",
                "reason": "; ".join(_failed_seeds(bad)) or None,
            }


def _of_split(rows: pd.DataFrame, answer: Answer) -> pd.DataFrame:
    if answer.split is None:
        return rows
    return rows[(rows["split"] == answer.split) | (rows["status"] != "ok")]


def _added_up(rows: pd.DataFrame, answer: Answer) -> pd.DataFrame:
    """One row a cell, with the sum of its metrics; where one has no value, the rows without."""
    if len(answer.metrics) == 1 or rows.empty:
        return rows
    parts = []
    for _, cell in rows.groupby("cell_key", sort=False):
        good = cell[cell["status"] == "ok"]
        if set(good["metric"]) == set(answer.metrics):
            total = good["value"].sum()
            parts.append(good.iloc[[0]].assign(metric=answer.name, value=total))
        else:
            parts.append(cell[cell["status"] != "ok"])
    return pd.concat(parts)


def _done_right(rows: pd.DataFrame) -> Record:
    """The measurement with the most seeds; empty where there is none."""
    if rows.empty:
        return {}
    seeds = across_seeds(rows).sort_values("seeds", kind="stable").iloc[-1]
    spread = {key: seeds[key] for key in ("standard_deviation", "ci_low", "ci_high")}
    return {f"done_right_{key}": v for key, v in {"mean": seeds["value"], **spread}.items()}


def _worst(rows: pd.DataFrame) -> str:
    """The status that says most; cells without any row of the metric are missing."""
    present = set(rows["status"])
    ranked = ("failed", "skipped", "not_applicable")
    return next((status for status in ranked if status in present), "missing")


def _reasons(rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(rows["reason"].dropna()))


def _failed_seeds(rows: pd.DataFrame) -> list[str]:
    rows = rows.drop_duplicates(["seed", "reason"])
    named = zip(rows["seed"], rows["status"], rows["reason"], strict=True)
    return [f"seed {seed} {status.replace('_', ' ')}: {reason}" for seed, status, reason in named]


def _compared(number: dict[Hashable, Any], answer: Answer, found: Record) -> Record:
    """How far ours is from the published value, and whether that is a comparison."""
    differs = "; ".join(differences(number, answer, found))
    compared: Record = {"differs": differs or None, "same_protocol": not differs}
    if found["status"] == "ok" and answer.same_quantity:
        compared["difference"] = found["mean"] - number["value"]
        compared["relative_difference"] = compared["difference"] / number["value"]
    return compared
