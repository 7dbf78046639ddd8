"""The tables of a profile: one for all cells, and one per cell for its layers."""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.store.other_neurons import footnotes, mark_other_neurons
from bench.store.schema import CELL, ELSEWHERE, OK, status_word
from bench.system.formatting import escape_markdown, number, pipe_table

SHORT = {
    "training": "train",
    "reconstruction": "recon.",
    "sampling": "sample",
    "scoring": "score",
}
NAMES = {*CELL, "activity", "layer"}
WHOLE_CALL = "whole call"
MIB = 2**20


@dataclass(frozen=True)
class ProfileTable:
    """A table as text.

    Attributes:
        title: what the table shows.
        cells: its texts.
        notes: lines below the table.
    """

    title: str
    cells: pd.DataFrame
    notes: tuple[str, ...] = ()


def print_tables(rows: pd.DataFrame) -> None:
    """Print the rows of :func:`bench.profile` to the terminal."""
    console = Console(highlight=False)
    for table in _tables(rows):
        console.print(Text(table.title))
        console.print(_grid(table.cells))
        for note in table.notes:
            console.print(Text(note))
        console.print()


def markdown(rows: pd.DataFrame) -> str:
    """Return the rows of :func:`bench.profile` as Markdown tables."""
    parts: list[str] = []
    for table in _tables(rows):
        right = [i for i, name in enumerate(table.cells) if name not in NAMES]
        lines = pipe_table(list(map(str, table.cells)), table.cells.to_numpy().tolist(), right)
        notes = map(escape_markdown, table.notes)
        parts += [f"**{escape_markdown(table.title)}**", lines, *notes]
    return "\n\n".join(parts)


def _tables(rows: pd.DataFrame) -> Iterator[ProfileTable]:
    rows = mark_other_neurons(rows)
    yield _summary(rows)
    for names, cell in rows[rows["quantity"] == "seconds"].groupby([*CELL], sort=False):
        yield ProfileTable(f"{' '.join(map(str, names))}: milliseconds per call", _layers(cell))


def _summary(rows: pd.DataFrame) -> ProfileTable:
    whole = rows[rows["layer"] == ""]
    reasons = list(whole["reason"].dropna().unique())
    lines = [
        line
        for _, cell in whole.groupby([*CELL], sort=False)
        for line in _cell_lines(cell, reasons)
    ]
    sizes = ", ".join(map(str, rows["batch_size"].unique()))
    return ProfileTable(
        f"Batches of {sizes} images on {rows['device'].iloc[0]}; range: slowest to fastest call",
        pd.DataFrame(lines),
        (
            *(f"({i}) {reason}" for i, reason in enumerate(reasons, 1)),
            *footnotes(rows["backend"]),
        ),
    )


def _cell_lines(cell: pd.DataFrame, reasons: list[str]) -> list[dict[str, str]]:
    """Return a line per activity, or one line if none has a number, all for the same reason."""
    names = {name: cell[name].iloc[0] for name in CELL}
    lines = []
    for activity, rows in cell.groupby("activity", sort=False):
        by_quantity = {row["quantity"]: row for row in rows.to_dict("records")}
        rate, memory = by_quantity["images_per_second"], by_quantity["peak_memory"]
        lines.append(
            {
                **names,
                "activity": SHORT[str(activity)],
                "images/s": _shown(rate, 1, reasons),
                "range": _range(rate),
                "peak MiB": _shown(memory, MIB, reasons),
            }
        )
    if cell["value"].isna().all() and cell["reason"].nunique() == 1:
        return [{**lines[0], "activity": "all"}]
    return lines


def _shown(row: Mapping[Hashable, Any], unit: float, reasons: list[str]) -> str:
    if row["status"] == OK:
        return number(row["value"] / unit)
    return f"{status_word(row['status'])} ({reasons.index(row['reason']) + 1})"


def _range(row: Mapping[Hashable, Any]) -> str:
    return f"{number(row['low'])}-{number(row['high'])}" if row["status"] == OK else ""


def _layers(cell: pd.DataFrame) -> pd.DataFrame:
    """Return the layers by their total time, then the time elsewhere and of the whole call."""
    seconds = cell.pivot_table("value", "layer", ["activity", "phase"], aggfunc="sum", sort=False)
    totals = seconds.T.groupby("activity").sum(min_count=1).T
    order = totals.sum(axis=1).sort_values(ascending=False).index.drop(["", ELSEWHERE])
    order = order.append(pd.Index([ELSEWHERE, ""]))
    columns = {"layer": pd.Series(order, order).replace({"": WHOLE_CALL})}
    for activity, short in SHORT.items():
        if activity not in totals:
            continue
        spent = totals[activity]
        columns[f"{short} ms"] = _milliseconds(spent)
        if (activity, "backward") in seconds:
            columns[f"{short} backw."] = _milliseconds(seconds[activity, "backward"])
        columns[f"{short} %"] = _texts(100 * spent / spent[""], "{:.1f}").replace("100.0", "100")
    return pd.DataFrame(columns, index=order).fillna("")


def _milliseconds(seconds: "pd.Series[float]") -> "pd.Series[str]":
    return _texts(seconds * 1000, "{:.2f}")


def _texts(values: "pd.Series[float]", form: str) -> "pd.Series[str]":
    return values.dropna().map(form.format)


def _grid(texts: pd.DataFrame) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for name in texts.columns:
        if name in NAMES:
            table.add_column(name, overflow="fold", vertical="bottom")
        else:
            table.add_column(_heading(name), justify="right", no_wrap=True, vertical="bottom")
    for row in texts.itertuples(index=False):
        table.add_row(*(Text(text) for text in row))
    return table


def _heading(name: str) -> str:
    """Return a column's heading in two lines; the share of a time has only its unit."""
    return "\n%" if name.endswith(" %") else name.replace(" ", "\n")
