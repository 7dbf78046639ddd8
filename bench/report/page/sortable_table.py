"""Tables that both the HTML page and the Markdown file show."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.system.formatting import number


@dataclass(frozen=True)
class TableColumn:
    """A column of a table.

    Attributes:
        heading: heading of the column.
        meaning: explanation of the heading; "" if none is needed.
        numeric: True if the column holds numbers.
    """

    heading: str
    meaning: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class TableEntry:
    """The content of one place of a table.

    Attributes:
        text: what is shown; "" for nothing.
        order: number that the row is sorted by in a numeric column; None sorts last.
        note: explanation of the text.
        status: ``failed``, ``skipped`` or ``not_applicable`` if there is no number.
    """

    text: str
    order: float | None = None
    note: str = ""
    status: str = ""


@dataclass(frozen=True)
class SortableTable:
    """A table that can be sorted and filtered.

    Attributes:
        name: a word that is unique in the report.
        caption: what the table shows.
        columns: columns from left to right; the first one names the row.
        rows: rows from top to bottom, one entry per column.
    """

    name: str
    caption: str
    columns: tuple[TableColumn, ...]
    rows: tuple[tuple[TableEntry, ...], ...]


def word(value: Any) -> TableEntry:
    """Return an entry for a word; empty if it is missing."""
    return TableEntry("" if pd.isna(value) else str(value))


def count(value: Any) -> TableEntry:
    """Return an entry for a whole number; empty if it is missing."""
    return TableEntry("") if pd.isna(value) else TableEntry(f"{int(value)}", float(value))


def measured(value: Any) -> TableEntry:
    """Return an entry for a measured number; empty if it is missing."""
    return TableEntry("") if pd.isna(value) else TableEntry(number(value), float(value))
