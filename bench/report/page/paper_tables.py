"""Tables of papers as part of a report."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from bench.report.page.sortable_table import SortableTable, TableColumn, TableEntry
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


def paper_tables(rows: pd.DataFrame, path: Path) -> Iterator[SortableTable]:
    """Yield the tables of papers that the run in ``path`` has at least one number for.

    Args:
        rows: rows of the run.
        path: the run directory, for the commands that fill missing cells.
    """
    for name in published_tables():
        table = paper_table(name, rows, path)
        if table["mean"].notna().any():
            yield _sortable(name, table, view(table))


def _sortable(name: str, table: pd.DataFrame, shown: View) -> SortableTable:
    columns = [TableColumn(heading, numeric=heading in NUMERIC) for heading in shown.cells.columns]
    lines = zip(table.to_dict("records"), shown.cells.to_dict("records"), strict=True)
    rows = tuple(
        tuple(_entry(str(heading), text, record, shown) for heading, text in line.items())
        for record, line in lines
    )
    return SortableTable(name, f"{shown.title}. {shown.legend}", tuple(columns), rows)


def _entry(heading: str, text: str, record: Any, shown: View) -> TableEntry:
    if heading == "notes":
        notes = [shown.notes[int(number) - 1] for number in text.split(",") if number]
        return TableEntry(" ".join(f"{note.text} {note.command or ''}".strip() for note in notes))
    if heading in NUMERIC:
        value = record[NUMERIC[heading]]
        return TableEntry(text, None if pd.isna(value) else float(value))
    return TableEntry(text)
