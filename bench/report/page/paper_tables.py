"""The papers' tables as part of a report, where the run has numbers for them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from bench.report.page.sortable_table import Column, Entry, Table
from bench.report.papers.paper_table import paper_table
from bench.report.papers.paper_view import View, view
from bench.report.papers.published import published_tables

NUMERIC = {
    "published": "published",
    "seeds": "seeds",
    "ours": "mean",
    "done right": "done_right_mean",
    "difference": "difference",
    "relative difference": "relative_difference",
}


def paper_tables(rows: pd.DataFrame, path: Path) -> Iterator[Table]:
    """The tables for which the run in ``path`` has at least one number of its own."""
    for name in published_tables():
        table = paper_table(name, rows, path)
        if table["mean"].notna().any():
            yield _sortable(name, table, view(table))


def _sortable(name: str, table: pd.DataFrame, shown: View) -> Table:
    columns = [Column(heading, numeric=heading in NUMERIC) for heading in shown.cells.columns]
    lines = zip(table.to_dict("records"), shown.cells.to_dict("records"), strict=True)
    rows = tuple(
        tuple(_entry(str(heading), text, record, shown) for heading, text in line.items())
        for record, line in lines
    )
    return Table(name, f"{shown.title}. {shown.legend}", tuple(columns), rows)


def _entry(heading: str, text: str, record: Any, shown: View) -> Entry:
    if heading == "notes":
        notes = [shown.notes[int(number) - 1] for number in text.split(",") if number]
        return Entry(" ".join(f"{note.text} {note.command or ''}".strip() for note in notes))
    if heading in NUMERIC:
        value = record[NUMERIC[heading]]
        return Entry(text, None if pd.isna(value) else float(value))
    return Entry(text)
