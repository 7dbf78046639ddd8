"""All metrics of whole models side by side: metrics by models, in groups."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.report.model_means import equal_backends, fold, joined, model_names, over_seeds
from bench.report.page.model_tables import (
    ARROWS,
    DIRECTIONS,
    MEAN,
    PLACE,
    WITHOUT_NUMBER,
    mean_entry,
    settings,
    without_number,
)
from bench.report.page.sortable_table import SortableTable, TableColumn, TableEntry
from bench.report.query import records_by
from bench.report.run_reader import Run
from bench.store.aggregation import of_models
from bench.store.other_neurons import footnotes
from bench.store.schema import GROUPS
from bench.system.formatting import number, readable_scale

KEYS = ["metric", "split", "noise_kind", "noise_level", "epoch_selection", "extractor"]


def measurement_tables(run: Run) -> list[SortableTable]:
    """Return every metric of whole models, one table per group of metrics, dataset and protocol.

    A column is a model on a backend; backends whose numbers are all the same share one. Values
    under noise are among them; values by layer and time step are not.
    """
    rows = of_models(run.rows)
    rows = rows[rows[["layer", "time_step"]].isna().all(axis=1)]
    tables: list[SortableTable] = []
    for title, own in settings(rows):
        tables += _of_setting(run, title, own.assign(name=model_names(own)), len(tables))
    return tables


def _of_setting(run: Run, title: str, rows: pd.DataFrame, before: int) -> list[SortableTable]:
    """Return the tables of one dataset and protocol.

    Args:
        run: the run.
        title: dataset and protocol.
        rows: rows of the setting, with a column ``name``.
        before: number of tables before these.
    """
    backends = equal_backends(rows, run)
    rows = rows.assign(name=_column_names(rows, backends))
    means = over_seeds(fold(rows), run) if (rows["value"].notna()).any() else rows.iloc[:0]
    names = list(rows["name"].unique())
    rows_of = records_by(rows, PLACE, WITHOUT_NUMBER)
    groups = means["metric"].map(lambda name: run.declaration(name).group)
    note = " ".join([*_same_numbers(backends), *footnotes(rows["backend"])])
    tables: list[SortableTable] = []
    for group in GROUPS:
        own = means[groups == group]
        if own.empty:
            continue
        lines = own.groupby(KEYS, dropna=False, sort=False, observed=True)
        ordered = sorted((part for _, part in lines), key=lambda part: _place(run, part))
        body = tuple(_row(run, part, rows_of, names) for part in ordered)
        columns = (TableColumn("metric"), *(TableColumn(name, "", True) for name in names))
        caption = "Means over seeds; below them, half of the 95 % interval."
        name = f"{group}-{before + len(tables) + 1}"
        heading = f"{group.capitalize()}: {title}"
        tables.append(SortableTable(name, caption, columns, body, title=heading, note=note))
    return tables


def _column_names(rows: pd.DataFrame, backends: Mapping[str, list[list[str]]]) -> list[str]:
    """Return the name of each row's column: its model, and its backends unless they all agree."""
    names = []
    for name, backend in zip(rows["name"], rows["backend"], strict=True):
        groups = backends.get(name, [])
        own = next((group for group in groups if backend in group), [str(backend)])
        names.append(name if len(groups) < 2 else f"{name} / {', '.join(own)}")
    return names


def _same_numbers(backends: Mapping[str, list[list[str]]]) -> list[str]:
    return [
        f"{name}: {joined(group)} have the same numbers, except for speed and memory."
        for name, groups in backends.items()
        for group in groups
        if len(group) > 1
    ]


def _place(run: Run, part: pd.DataFrame) -> tuple[Any, ...]:
    """Return what the rows of a table are sorted by: headlines first, then by label."""
    first = part.iloc[0]
    known = run.declaration(first["metric"])
    rank = known.headline.rank if known.headline else 1000
    level = -1.0 if pd.isna(first["noise_level"]) else first["noise_level"]
    texts = (run.label(first["metric"]), *(str(first[key]) for key in ("noise_kind", "split")))
    return rank, texts[0].lower(), texts[1:], level


def _row(
    run: Run, part: pd.DataFrame, rows_of: Mapping[Any, list[dict[str, Any]]], names: list[str]
) -> tuple[TableEntry, ...]:
    """Return the row of one metric.

    Args:
        run: the run.
        part: means of the metric, one row per column of the table.
        rows_of: rows of the setting by name and metric, for the reasons of missing numbers.
        names: names of the columns.
    """
    first = part.iloc[0]
    known = run.declaration(first["metric"])
    scale = readable_scale(str(first["unit"]), part["value"])
    by_name = {key[0]: rows[0] for key, rows in records_by(part, PLACE, MEAN).items()}
    entries = (
        mean_entry(by_name[name], scale, strong=False, of_machine=not known.reproducible)
        if name in by_name
        else without_number(rows_of.get((name, first["metric"]), []))
        for name in names
    )
    noise = "" if pd.isna(first["noise_kind"]) else str(first["noise_kind"]).replace("_", " ")
    if not pd.isna(first["noise_level"]):
        noise += f" {number(first['noise_level'])}"
    label, up = run.label(first["metric"]), first["higher_is_better"]
    unit = scale.unit.removesuffix(f" {label}")
    about = [noise, "" if pd.isna(first["split"]) else str(first["split"]), unit]
    return (
        TableEntry(
            label + ("" if pd.isna(up) else ARROWS[bool(up)]),
            note=_explained(first, part),
            detail=", ".join(text for text in about if text),
        ),
        *entries,
    )


def _explained(first: "pd.Series[Any]", part: pd.DataFrame) -> str:
    """Return what a metric's row is about: its name, direction, images, epoch and extractor."""
    better, n = first["higher_is_better"], part["n"].dropna().unique()
    facts = [
        first["metric"],
        "" if pd.isna(better) else DIRECTIONS[bool(better)],
        "" if len(n) == 0 else f"{', '.join(f'{int(each):,}' for each in sorted(n))} images",
        "" if pd.isna(first["epoch_selection"]) else f"epoch: {first['epoch_selection']}",
        "" if pd.isna(first["extractor"]) else f"features: {first['extractor']}",
    ]
    return "; ".join(str(fact) for fact in facts if fact)
