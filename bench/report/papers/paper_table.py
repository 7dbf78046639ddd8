"""Tables of papers: published numbers next to the numbers of a run.

``paper_table`` returns a tidy frame, which ``render`` writes as text.
"""

import os
from collections.abc import Hashable, Iterator
from typing import Any

import pandas as pd

from bench.report.papers.agreement import NO_PROTOCOL, command, differences, worth_running
from bench.report.papers.paper_view import MISSING, PUBLISHED_ONLY
from bench.report.papers.published import MAPPINGS, MetricMapping, published
from bench.report.papers.rendering import FORMATS, render
from bench.store.aggregation import across_seeds, whole_models
from bench.store.other_neurons import mark_other_neurons
from bench.store.schema import CELL_VARIATION, NO_VALUE, OK

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
# Without train_images: a cell that failed before training has none.
SAME_CELL = ["backend", *(name for name in CELL_VARIATION if name != "train_images")]
SAME_MEASUREMENT = ["metric_version", "extractor", "epoch_selection", "n"]

Record = dict[str, Any]


def paper_table(name: str, rows: pd.DataFrame, out: str | os.PathLike[str] = "DIR") -> pd.DataFrame:
    """Return a paper's table with our number next to each published one.

    Args:
        name: name of the table, one of :func:`bench.report.papers.published.published_tables`.
        rows: rows of a run, as :func:`bench.load_results` returns them.
        out: the run directory, for the commands that fill missing cells.

    Returns:
        ``COLUMNS``, one row per published number, or several if the run has several backends,
        protocols or devices. ``status`` is ``ok``, ``failed``, ``skipped``, ``not_applicable``,
        ``missing`` (``command`` computes it) or ``published_only`` (the suite has no protocol for
        it). ``mean``, ``standard_deviation`` and the 95 % interval are over seeds. ``difference``
        is ours minus the published value, and ``relative_difference`` is the difference divided by
        the published value. ``done_right_mean`` and the other ``done_right`` columns are about the
        metric ``done_right``. ``same_protocol`` is false if ``differs`` names differences.

    Raises:
        UnknownNameError: no such table.
    """
    whole = whole_models(mark_other_neurons(rows))
    measured = dict(iter(whole.groupby(["model", "dataset"], sort=False, observed=True)))
    records = [
        {"table": name, **record}
        for number in published(name).to_dict("records")
        for record in _records(
            number,
            measured.get((number["model"], number["dataset"]), whole.iloc[:0]),
            os.fspath(out),
        )
    ]
    return pd.DataFrame.from_records(records).reindex(columns=list(COLUMNS)).astype(COLUMNS)


def _records(number: dict[Hashable, Any], rows: pd.DataFrame, out: str) -> Iterator[Record]:
    """Yield the table's rows for a published number.

    Args:
        number: the published number.
        rows: rows of the run about the number's model and dataset.
        out: the run directory.
    """
    mapping = MAPPINGS[number["metric"]]
    record: Record = {
        **{key: number[key] for key in ("dataset", "model", "model_family", "metric")},
        "published": number["value"],
        "printed": number["printed"],
        "answered_by": mapping.name,
        "done_right": mapping.done_right,
        "source": number["source"],
        "note": number["note"] or None,
    }
    rows = rows[rows["metric"].isin({*mapping.metrics, mapping.done_right})]
    if rows.empty:
        if number["protocol"]:
            yield {**record, "status": MISSING, "command": command(number, None, out)}
        else:
            why = [NO_PROTOCOL, number["deviation"]]
            yield {**record, "status": PUBLISHED_ONLY, "reason": "; ".join(filter(None, why))}
        return
    for _, cells in rows.groupby(SAME_CELL, dropna=False, sort=False):
        for ours in _measured(cells, mapping):
            ours |= _compared(number, mapping, ours)
            if worth_running(number, ours, rows):
                ours["command"] = command(number, ours["backend"], out)
            yield {**record, **ours}


def _measured(cells: pd.DataFrame, mapping: MetricMapping) -> Iterator[Record]:
    """Yield what cells that differ only by their seed measured, or why they have no value."""
    rows = _added_up(_of_split(cells[cells["metric"].isin(mapping.metrics)], mapping), mapping)
    right = cells[(cells["metric"] == mapping.done_right) & (cells["status"] == OK)]
    first = cells.iloc[0]
    common: Record = {**{key: first[key] for key in SAME_CELL}, **_done_right(right)}
    good, bad = rows[rows["status"] == OK], rows[rows["status"] != OK]
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
                "status": OK,
                "reason": "; ".join(_failed_seeds(bad)) or None,
            }


def _of_split(rows: pd.DataFrame, mapping: MetricMapping) -> pd.DataFrame:
    if mapping.split is None:
        return rows
    return rows[(rows["split"] == mapping.split) | (rows["status"] != OK)]


def _added_up(rows: pd.DataFrame, mapping: MetricMapping) -> pd.DataFrame:
    """Return one row per cell with the sum of its metrics, or the rows without a value."""
    if len(mapping.metrics) == 1 or rows.empty:
        return rows
    parts = []
    for _, cell in rows.groupby("cell_key", sort=False):
        good = cell[cell["status"] == OK]
        if set(good["metric"]) == set(mapping.metrics):
            total = good["value"].sum()
            parts.append(good.iloc[[0]].assign(metric=mapping.name, value=total))
        else:
            parts.append(cell[cell["status"] != OK])
    return pd.concat(parts)


def _done_right(rows: pd.DataFrame) -> Record:
    """Return the measurement with the most seeds; empty if there is none."""
    if rows.empty:
        return {}
    seeds = across_seeds(rows).sort_values("seeds", kind="stable").iloc[-1]
    spread = {key: seeds[key] for key in ("standard_deviation", "ci_low", "ci_high")}
    return {f"done_right_{key}": v for key, v in {"mean": seeds["value"], **spread}.items()}


def _worst(rows: pd.DataFrame) -> str:
    """Return the gravest status; cells without any row of the metric are missing."""
    present = set(rows["status"])
    return next((status for status in NO_VALUE if status in present), MISSING)


def _reasons(rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(rows["reason"].dropna()))


def _failed_seeds(rows: pd.DataFrame) -> list[str]:
    rows = rows.drop_duplicates(["seed", "reason"])
    named = zip(rows["seed"], rows["status"], rows["reason"], strict=True)
    return [f"seed {seed} {status.replace('_', ' ')}: {reason}" for seed, status, reason in named]


def _compared(number: dict[Hashable, Any], mapping: MetricMapping, ours: Record) -> Record:
    """Return the differences of ours from the published number."""
    differs = "; ".join(differences(number, mapping, ours))
    compared: Record = {"differs": differs or None, "same_protocol": not differs}
    if ours["status"] == OK and mapping.same_quantity:
        compared["difference"] = ours["mean"] - number["value"]
        compared["relative_difference"] = compared["difference"] / number["value"]
    return compared
