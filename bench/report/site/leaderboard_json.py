"""The leaderboard for programs: ``leaderboard.json``, described in docs/report.md."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from bench.report.model_means import fold, over_seeds
from bench.report.page.model_tables import ModelTable
from bench.report.run_reader import Run
from bench.report.site.leaderboard import Entry, Leaderboard, Pages, Tab
from bench.report.site.site_runs import SiteRun
from bench.store.other_neurons import is_marked, without_mark
from bench.store.schema import NO_VALUE, OK

SITE_SCHEMA_VERSION = 1
KIND = "spikegen-bench leaderboard"
NO_REASON = "no reason was recorded"

Record = dict[str, Any]


def content(runs: Sequence[SiteRun], board: Leaderboard, pages: Pages) -> Record:
    """Return what ``leaderboard.json`` says: runs, tabs, and an entry per row of a tab.

    Args:
        runs: the runs.
        board: the leaderboard.
        pages: address of the page of each model.
    """
    return {
        "kind": KIND,
        "schema_version": SITE_SCHEMA_VERSION,
        "runs": [
            {
                "name": run.name,
                "models": [{"name": model, "page": pages[run.name, model]} for model in run.models],
                "rows": len(run.run.rows),
                "ok_rows": int((run.run.rows["status"] == OK).sum()),
            }
            for run in runs
        ],
        "tabs": [_tab(tab) for tab in board.tabs],
        "entries": [
            _entry(board.run, tab, entry, pages[entry.run.name, entry.model])
            for tab in board.tabs
            for entry in tab.entries
        ],
    }


def _tab(tab: Tab) -> Record:
    return {
        "id": tab.name,
        "title": tab.title,
        "tests": tab.models.tests,
        "note": tab.table.note,
        "warnings": [str(warning) for warning in tab.warnings],
    }


def _entry(run: Run, tab: Tab, entry: Entry, page: str) -> Record:
    """Return a row of a tab with all metrics of whole models.

    Args:
        run: all runs as one.
        tab: the tab.
        entry: the row.
        page: address of the model's page.
    """
    rows = entry.rows
    first = rows.iloc[0]
    budget = tab.models.budgets.get(entry.name)
    backends = sorted(map(str, rows["backend"].unique()))
    return {
        "tab": tab.name,
        "run": entry.run.name,
        "model": entry.model,
        "name": entry.name,
        "model_versions": _texts(rows["model_version"]),
        "page": page,
        "backends": [without_mark(name) for name in backends],
        "other_neuron": [without_mark(name) for name in backends if is_marked(name)],
        "protocol": {"name": _text(first["protocol"]), "hash": _text(first["protocol_hash"])},
        "dataset": {
            "name": _text(first["dataset"]),
            "variant": _text(first["dataset_variant"]),
            "fingerprint": _text(first["dataset_fingerprint"]),
        },
        "seeds": [int(seed) for seed in sorted(rows["seed"].dropna().unique())],
        "training_images": None if pd.isna(budget) else int(budget),
        "suite_versions": entry.versions,
        "row_schema_versions": [int(v) for v in sorted(rows["schema_version"].dropna().unique())],
        "devices": entry.devices,
        "processors": _texts(rows["processor"]),
        "metrics": [*_measured(run, tab.models, entry), *_missing(run, tab.models, entry)],
    }


def _measured(run: Run, table: ModelTable, entry: Entry) -> Iterator[Record]:
    """Yield the metrics that have a value, averaged over backends and then over seeds."""
    if not (entry.rows["status"] == OK).any():
        return
    for row in over_seeds(fold(entry.rows), run).to_dict("records"):
        metric, split = str(row["metric"]), _text(row["split"])
        headline = table.headlines.get(metric)
        shown = headline is not None and (headline.split or None) == split
        low, high = (_number(row[end]) for end in ("ci_low", "ci_high"))
        interval = None if low is None or high is None else [low, high]
        mean = _number(row["value"])
        yield {
            "metric": metric,
            "label": _label(run, metric),
            "split": split,
            "epoch_selection": _text(row["epoch_selection"]),
            "extractor": _text(row["extractor"]),
            "unit": _text(row["unit"]),
            "higher_is_better": _flag(row["higher_is_better"]),
            "mean": mean,
            "half_interval": interval and (interval[1] - interval[0]) / 2,
            "interval": interval,
            "interval_over": interval and ("seeds" if row["seeds"] > 1 else "images"),
            "seeds": int(row["seeds"]),
            "n": None if pd.isna(row["n"]) else int(row["n"]),
            "in_table": shown,
            "verdict": _verdict(table, metric, entry.name) if shown else None,
            "status": OK,
            "reason": None if mean is not None else f"the value is {row['value']}",
        }


def _missing(run: Run, table: ModelTable, entry: Entry) -> Iterator[Record]:
    """Yield the metrics without a value, with the gravest reason."""
    for metric, rows in entry.rows.groupby("metric", sort=False):
        if (rows["status"] == OK).any():
            continue
        status = next(each for each in NO_VALUE if (rows["status"] == each).any())
        first = rows[rows["status"] == status].iloc[0]
        empty = ("epoch_selection", "extractor", "mean", "half_interval", "interval")
        yield {
            "metric": str(metric),
            "label": _label(run, str(metric)),
            "split": _text(first["split"]),
            "unit": _text(first["unit"]),
            "higher_is_better": _flag(first["higher_is_better"]),
            **dict.fromkeys((*empty, "interval_over", "n", "verdict")),
            "seeds": 0,
            "in_table": metric in table.headlines,
            "status": status,
            "reason": _text(first["reason"]) or NO_REASON,
        }


def _verdict(table: ModelTable, metric: str, name: str) -> str | None:
    """Return how a row compares with the best one; None if nothing is compared.

    Args:
        table: the table.
        metric: one of its metrics.
        name: the row.
    """
    if metric in table.incomparable:
        return "not_comparable"
    best = table.best.get(metric)
    if best is None:
        return None
    if best.methods == {"none"}:
        return "not_compared"
    if name != best.model and name not in best.equals:
        return "worse"
    return "undecided" if best.equals else "best"


def _label(run: Run, metric: str) -> str:
    return run.declaration(metric).label or metric.replace("_", " ")


def _number(value: Any) -> float | None:
    return None if pd.isna(value) or not math.isfinite(value) else float(value)


def _flag(value: Any) -> bool | None:
    return None if pd.isna(value) else bool(value)


def _text(value: Any) -> str | None:
    return None if pd.isna(value) else str(value)


def _texts(values: pd.Series) -> list[str]:
    return sorted({str(value) for value in values.dropna()})
