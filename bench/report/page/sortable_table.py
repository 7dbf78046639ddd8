"""Tables as both the page and the Markdown file show them."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.report.numbers import number


@dataclass(frozen=True)
class Column:
    """A column: its heading, what the heading means, and whether it holds numbers."""

    heading: str
    meaning: str = ""
    numeric: bool = False


@dataclass(frozen=True)
class Entry:
    """What stands in one place of a table.

    Attributes:
        text: as it is read; "" where there is nothing.
        order: the number that it is sorted by in a numeric column; None comes last.
        note: what explains it.
        status: ``failed``, ``skipped`` or ``not_applicable`` where there is no number.
    """

    text: str
    order: float | None = None
    note: str = ""
    status: str = ""


@dataclass(frozen=True)
class Table:
    """A table that can be sorted and filtered.

    Attributes:
        name: a word that is unique in the report.
        caption: what it shows.
        columns: from left to right; the first names the row.
        rows: one entry a column.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]


def word(value: Any) -> Entry:
    """An entry of a column of words."""
    return Entry("" if pd.isna(value) else str(value))


def count(value: Any) -> Entry:
    """An entry of a column of whole numbers."""
    return Entry("", None) if pd.isna(value) else Entry(f"{int(value)}", float(value))


def measured(value: Any) -> Entry:
    """An entry of a column of measured numbers."""
    return Entry("", None) if pd.isna(value) else Entry(number(value), float(value))
