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
        detail: what stands below the text, smaller.
        strong: True if the text is emphasised.
        link: address that the text leads to in HTML; "" for none.
    """

    text: str
    order: float | None = None
    note: str = ""
    status: str = ""
    detail: str = ""
    strong: bool = False
    link: str = ""

    @property
    def line(self) -> str:
        """The text with its detail, in one line."""
        return f"{self.text} {self.detail}".strip()


@dataclass(frozen=True)
class SortableTable:
    """A table that can be sorted and filtered.

    Attributes:
        name: a word that is unique in the report.
        caption: what the table shows.
        columns: columns from left to right; the first one names the row.
        rows: rows from top to bottom, one entry per column.
        title: heading of the table; the name if empty.
        footer: a last row that sorting leaves in its place; empty for none.
        note: sentence below the table.
        narrow: True if the rows become cards on a narrow screen.
    """

    name: str
    caption: str
    columns: tuple[TableColumn, ...]
    rows: tuple[tuple[TableEntry, ...], ...]
    title: str = ""
    footer: tuple[TableEntry, ...] = ()
    note: str = ""
    narrow: bool = False


def word(value: Any) -> TableEntry:
    """Return an entry for a word; empty if it is missing."""
    return TableEntry("" if pd.isna(value) else str(value))


def count(value: Any) -> TableEntry:
    """Return an entry for a whole number; empty if it is missing."""
    return TableEntry("") if pd.isna(value) else TableEntry(f"{int(value)}", float(value))


def measured(value: Any) -> TableEntry:
    """Return an entry for a measured number; empty if it is missing."""
    return TableEntry("") if pd.isna(value) else TableEntry(number(value), float(value))
