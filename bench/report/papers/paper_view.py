"""A paper's table as a reader sees it: rounded numbers, and numbered notes below."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

LEGEND = (
    "Ours: mean over seeds ± half of its 95 % interval, by the metric that computes as the paper's "
    "code does. Done right: the same quantity as it should be computed. Difference: ours minus "
    "published; relative: over published."
)
UNITS_DIFFER = (
    "Ours: mean over seeds ± half of its 95 % interval, an image. Units and definitions differ, "
    "see the notes, so there is no difference."
)
STATUSES = {
    "failed": "failed",
    "skipped": "skipped",
    "not_applicable": "n/a",
    "missing": "missing",
    "published_only": "-",
}
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
    """What has to be known of some cells: words, and what to run, if anything."""

    text: str
    command: str | None = None


@dataclass(frozen=True)
class View:
    """A table as text, unescaped.

    Attributes:
        title: the table's name and where it was published.
        legend: how to read it.
        cells: one row a line, all strings without control characters.
        notes: numbered from 1; the column ``notes`` of ``cells`` refers to them.
    """

    title: str
    legend: str
    cells: pd.DataFrame
    notes: tuple[Note, ...]


def view(table: pd.DataFrame) -> View:
    """What :func:`bench.report.papers.paper_table.paper_table` gave, for a reader."""
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
    legend = LEGEND if comparable else UNITS_DIFFER
    return View(title, legend, cells.drop(columns=empty), tuple(numbers))


def plain(text: str) -> str:
    """Text in one line, with a space for what cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def rounded(mean: float, half: float | None = None) -> str:
    """Four digits, or decimals as a published number has them; ``± half`` to the same place."""
    magnitude = abs(mean)
    if magnitude and not 1e-3 <= magnitude < 1e5:
        form = "{:.2e}"
    else:
        digits = 3 - math.floor(math.log10(magnitude)) if magnitude else 3
        form = f"{{:.{min(max(digits, 0), 4)}f}}"
    if half is None:
        return form.format(mean)
    return f"{form.format(mean)}±{form.format(half) if half else 0}"


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
        "done right": "" if row["done_right_mean"] is None else rounded(row["done_right_mean"]),
        "difference": "" if row["difference"] is None else _signed(row["difference"]),
        "relative difference": _relative(row["relative_difference"]),
        "same protocol": same,
        "notes": ",".join(map(str, sorted(notes))),
    }
    return {name: plain(text) for name, text in cells.items()}


def _ours(row: Mapping[str, Any]) -> str:
    if row["mean"] is None:
        return STATUSES[row["status"]]
    half = None if row["ci_high"] is None else row["ci_high"] - row["mean"]
    return rounded(row["mean"], half)


def _signed(value: float) -> str:
    return ("+" if value >= 0 else "") + rounded(value)


def _relative(fraction: float | None) -> str:
    """A signed percentage: a decimal below 100, none above."""
    if fraction is None:
        return ""
    value = 100 * fraction
    return f"{value:+.1f}%" if abs(value) < 100 else f"{value:+.0f}%"


def _notes(row: Mapping[str, Any]) -> list[Note]:
    notes = []
    if row["reason"]:
        label = "" if row["status"] == "ok" else f"{row['status'].replace('_', ' ')}: "
        notes.append(Note(plain(label + row["reason"])))
    if row["differs"]:
        notes.append(Note(plain(f"Differs from the paper: {row['differs']}.")))
    if row["command"]:
        text = "Not in this run." if row["status"] == "missing" else "By the paper's protocol:"
        notes.append(Note(text, row["command"]))
    if row["status"] == "published_only":
        notes.append(Note("Published only: the suite has no such model."))
    if row["note"]:
        notes.append(Note(plain(f"Published number: {row['note']}.")))
    return notes
