"""The tables of a profile: one of all cells, and one of each cell's layers."""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.recording.layer_timing import ELSEWHERE
from bench.report.markdown import escaped, pipe_table
from bench.report.numbers import number

CELL = ["model", "backend", "dataset"]
SHORT = {"training": "train", "reconstruction": "recon.", "sampling": "sample"}
NAMES = {*CELL, "activity", "layer"}
STATUS_WORDS = {"not_applicable": "n/a"}
WHOLE_CALL = "whole call"
MIB = 2**20


@dataclass(frozen=True)
class Texts:
    """A table as it is read.

    Attributes:
        title: what it is of.
        cells: its texts.
        notes: lines below.
    """

    title: str
    cells: pd.DataFrame
    notes: tuple[str, ...] = ()


def print_tables(rows: pd.DataFrame) -> None:
    """Print what :func:`bench.profile` gives to the terminal."""
    console = Console(highlight=False)
    for texts in _tables(rows):
        console.print(Text(texts.title))
        console.print(_grid(texts.cells))
        for note in texts.notes:
            console.print(Text(note))
        console.print()


def markdown(rows: pd.DataFrame) -> str:
    """What :func:`bench.profile` gives as Markdown."""
    parts: list[str] = []
    for texts in _tables(rows):
        table = pipe_table(texts.cells, set(map(str, texts.cells)) - NAMES)
        parts += [f"**{escaped(texts.title)}**", table, *map(escaped, texts.notes)]
    return "\n\n".join(parts)


def _tables(rows: pd.DataFrame) -> Iterator[Texts]:
    yield _summary(rows)
    for names, cell in rows[rows["quantity"] == "seconds"].groupby(CELL, sort=False):
        yield Texts(f"{' '.join(map(str, names))}: milliseconds of a call", _layers(cell))


def _summary(rows: pd.DataFrame) -> Texts:
    whole = rows[rows["layer"] == ""]
    reasons = list(whole["reason"].dropna().unique())
    lines = [
        line for _, cell in whole.groupby(CELL, sort=False) for line in _cell_lines(cell, reasons)
    ]
    sizes = ", ".join(map(str, rows["batch_size"].unique()))
    return Texts(
        f"Batches of {sizes} images on {rows['device'].iloc[0]}; range: slowest to fastest call",
        pd.DataFrame(lines),
        tuple(f"({i}) {reason}" for i, reason in enumerate(reasons, 1)),
    )


def _cell_lines(cell: pd.DataFrame, reasons: list[str]) -> list[dict[str, str]]:
    """A line an activity, or one line if none of them has a number, all for the same reason."""
    names = {name: cell[name].iloc[0] for name in CELL}
    lines = []
    for activity, found in cell.groupby("activity", sort=False):
        by_quantity = {row["quantity"]: row for row in found.to_dict("records")}
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
    if row["status"] == "ok":
        return number(row["value"] / unit)
    return f"{STATUS_WORDS.get(row['status'], row['status'])} ({reasons.index(row['reason']) + 1})"


def _range(row: Mapping[Hashable, Any]) -> str:
    return f"{number(row['low'])}-{number(row['high'])}" if row["status"] == "ok" else ""


def _layers(cell: pd.DataFrame) -> pd.DataFrame:
    """Layers by all their time, then what passed elsewhere and the whole."""
    seconds = cell.pivot_table("value", "layer", ["activity", "phase"], aggfunc="sum", sort=False)
    totals = seconds.T.groupby("activity").sum(min_count=1).T
    order = totals.sum(axis=1).sort_values(ascending=False).index.drop(["", ELSEWHERE.layer])
    order = order.append(pd.Index([ELSEWHERE.layer, ""]))
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
    """A column's name in two lines; a share stands beside the time that it is of."""
    return "\n%" if name.endswith(" %") else name.replace(" ", "\n")
