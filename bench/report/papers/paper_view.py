"""A paper's table as text: rounded numbers, and numbered notes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.report.papers.published import UNITS
from bench.store.other_neurons import footnotes
from bench.store.schema import OK, status_word
from bench.system.formatting import fixed_point

LEGEND = (
    "Ours: mean over seeds ± half of its 95 % interval, by the metric that computes as the paper's "
    "code does. Done right: the same quantity, computed correctly. Difference: ours minus "
    "published; relative difference: divided by published."
)
UNITS_DIFFER = (
    "Ours: mean over seeds ± half of its 95 % interval, per image. Units and definitions differ "
    "(see the notes), so there is no difference."
)
PUBLISHED_ONLY = "published_only"
MISSING = "missing"
DROPPED_IF_EMPTY = [
    "backend",
    "seeds",
    "done right",
    "difference",
    "relative difference",
    "same protocol",
]


@dataclass(frozen=True)
class Note:
    """A note to some cells.

    Attributes:
        text: what a reader must know.
        command: command to run; None if there is none.
    """

    text: str
    command: str | None = None


@dataclass(frozen=True)
class View:
    """A table as text, unescaped.

    Attributes:
        title: name of the table and its source.
        legend: explanation of the columns.
        cells: texts without control characters, one row per line of the table.
        notes: notes, to which the column ``notes`` of ``cells`` refers by number from 1.
    """

    title: str
    legend: str
    cells: pd.DataFrame
    notes: tuple[Note, ...]


def view(table: pd.DataFrame) -> View:
    """Return the table of :func:`bench.report.papers.paper_table.paper_table` as text."""
    numbers: dict[Note, int] = {}
    lines = []
    for row in table.to_dict("records"):
        known = {str(key): None if pd.isna(value) else value for key, value in row.items()}
        for note in _notes(known):
            numbers.setdefault(note, len(numbers) + 1)
        lines.append(_line(known, [numbers[note] for note in _notes(known)]))
    cells = pd.DataFrame(lines)
    empty = [name for name in DROPPED_IF_EMPTY if not cells[name].any()]
    comparable = table["done_right"].notna().any()
    sources = "; ".join(dict.fromkeys(table["source"]))
    title = plain(f"{table['table'].iloc[0]}: {sources}")
    legend = " ".join([LEGEND if comparable else UNITS_DIFFER, *footnotes(table["backend"])])
    return View(title, legend, cells.drop(columns=empty), tuple(numbers))


def plain(text: str) -> str:
    r"""Return text in one line, with a space for each character that cannot be printed.

    >>> plain("a\tb\n c")
    'a b c'
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _line(row: Mapping[str, Any], notes: list[int]) -> dict[str, str]:
    same = {True: "yes", False: "no", None: ""}[row["same_protocol"]]
    cells = {
        "dataset": row["dataset"],
        "model": row["model"],
        "family": row["model_family"],
        "metric": row["metric"],
        "published": row["printed"],
        "backend": row["backend"] or "",
        "seeds": "" if row["seeds"] is None else str(row["seeds"]),
        "ours": _ours(row),
        "done right": _number(row, "done_right_mean"),
        "difference": _signed(_number(row, "difference")),
        "relative difference": _relative(row["relative_difference"]),
        "same protocol": same,
        "notes": ",".join(map(str, sorted(notes))),
    }
    return {name: plain(text) for name, text in cells.items()}


def _ours(row: Mapping[str, Any]) -> str:
    if row["mean"] is None:
        return "-" if row["status"] == PUBLISHED_ONLY else status_word(row["status"])
    half = None if row["ci_high"] is None else row["ci_high"] - row["mean"]
    return _number(row, "mean", half)


def _number(row: Mapping[str, Any], name: str, half: float | None = None) -> str:
    """Return a number in the unit of the published one.

    Args:
        row: the row of the table.
        name: column of the number.
        half: half the width of its interval; None for none.
    """
    if row[name] is None:
        return ""
    unit = row["printed"].partition(" ")[2]
    scale = UNITS[unit]
    number = fixed_point(row[name] / scale, None if half is None else half / scale)
    return f"{number} {unit}".rstrip()


def _signed(number: str) -> str:
    return number if not number or number.startswith("-") else f"+{number}"


def _relative(fraction: float | None) -> str:
    """Return a signed percentage, with one decimal below 100."""
    if fraction is None:
        return ""
    value = 100 * fraction
    return f"{value:+.1f}%" if abs(value) < 100 else f"{value:+.0f}%"


def _notes(row: Mapping[str, Any]) -> list[Note]:
    notes = []
    if row["reason"]:
        label = "" if row["status"] == OK else f"{row['status'].replace('_', ' ')}: "
        notes.append(Note(plain(label + row["reason"])))
    if row["differs"]:
        notes.append(Note(plain(f"Differs from the paper: {row['differs']}.")))
    if row["command"]:
        text = "Not in this run." if row["status"] == MISSING else "By the paper's protocol:"
        notes.append(Note(text, row["command"]))
    if row["note"]:
        notes.append(Note(plain(f"Published number: {row['note']}.")))
    return notes
