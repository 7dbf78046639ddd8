"""Rows of a run, filtered and sorted, in the terminal."""

from collections.abc import Sequence
from pathlib import Path

import click
import pandas as pd

from bench.report.markdown import pipe_table
from bench.report.numbers import number
from bench.report.query import check_column, none_met, select
from bench.store.run_directory import load_results

COLUMNS = ("model", "backend", "dataset", "seed", "metric", "split", "value", "n")
# Shown only where the rows that are listed have them.
DETAILS = ("layer", "time_step", "noise_kind", "noise_level", "unit")
NAMES = ("model", "backend", "dataset", "seed", "metric", "split", "unit")
NUMBERS = {"seed", "value", "n", "time_step", "noise_level", "ci_low", "ci_high", "epoch"}
READABLE = 12
STATUS_WORDS = {"not_applicable": "n/a"}
ALL = "all"


def print_rows(
    path: Path,
    conditions: Sequence[str] = (),
    sort: str | None = None,
    columns: str | None = None,
    file_format: str = "table",
) -> None:
    """Print rows of a run directory.

    Args:
        path: the run directory.
        conditions: each ``COLUMN=VALUE,...``; see :func:`select`.
        sort: a column, with ``-`` before it to sort downwards; None keeps the order of the run.
        columns: names separated by commas, or ``all``; None shows those that matter.
        file_format: ``table``, ``csv``, ``md`` or ``json``.

    Raises:
        BenchError: not a run directory, or an unknown column or value.
    """
    rows = load_results(path)
    if rows.empty:
        click.echo(f"{path} has no rows yet.", err=True)
        return
    chosen = select(rows, conditions)
    if sort is not None:
        name = sort.removeprefix("-")
        check_column(name, rows)
        chosen = chosen.sort_values(name, ascending=not sort.startswith("-"), kind="stable")
    if chosen.empty:
        click.echo(none_met(rows, conditions), err=True)
    shown = chosen[_columns(columns, chosen)]
    if file_format == "csv":
        click.echo(shown.to_csv(index=False), nl=False)
    elif file_format == "json":
        click.echo(shown.to_json(orient="records", indent=2, double_precision=15))
    elif file_format == "md" and not shown.empty:
        click.echo(pipe_table(_texts(shown), NUMBERS))
    elif not shown.empty:
        if columns is None:
            _print_short(chosen, shown)
        else:
            _print_table(_texts(shown))
        click.echo(f"{len(shown):,} of {len(rows):,} rows.")


def _columns(asked: str | None, rows: pd.DataFrame) -> list[str]:
    if asked == ALL:
        return list(rows.columns)
    if asked is not None:
        names = [name.strip() for name in asked.split(",")]
        for name in names:
            check_column(name, rows)
        return names
    filled = [name for name in DETAILS if rows[name].notna().any()]
    if "unit" in filled and (rows["unit"] == "1").all():
        filled.remove("unit")
    ended = [] if (rows["status"] == "ok").all() else ["status", "reason"]
    return [*COLUMNS, *filled, *ended]


def _texts(rows: pd.DataFrame) -> pd.DataFrame:
    """Every entry as it is read."""
    return pd.DataFrame({name: _column_texts(rows[name]) for name in rows}, dtype=object)


def _column_texts(values: pd.Series) -> pd.Series:
    if pd.api.types.is_float_dtype(values):
        return values.map(number)
    return values.astype("string").fillna("").astype(object)


def _print_short(rows: pd.DataFrame, shown: pd.DataFrame) -> None:
    """Print a table that says once what all rows share, and each reason once, below."""
    texts = _texts(shown.drop(columns=["status", "reason"], errors="ignore"))
    texts = _with_details_together(texts)
    shared = [name for name in NAMES if name in texts and len(rows) > 1]
    shared = [name for name in shared if texts[name].nunique() == 1 and texts[name].iloc[0]]
    if shared:
        click.echo(", ".join(f"{name} {texts[name].iloc[0]}" for name in shared))
    numberless = rows[rows["status"] != "ok"]
    reasons = numberless["reason"].fillna("no reason was noted")
    listed = list(reasons.unique())
    texts.loc[numberless.index, "value"] = [
        f"{STATUS_WORDS.get(status, status)} ({listed.index(reason) + 1})"
        for status, reason in zip(numberless["status"], reasons, strict=True)
    ]
    _print_table(texts.drop(columns=[*shared, "unit"], errors="ignore"))
    for i, reason in enumerate(listed, start=1):
        click.echo(f"({i}) {reason}")


def _with_details_together(texts: pd.DataFrame) -> pd.DataFrame:
    """Put layer, time step and noise into one column, ``at``, where there are any."""
    found = [name for name in DETAILS if name != "unit" and name in texts]
    if not found:
        return texts
    marked = texts[found].copy()
    if "time_step" in found:
        marked["time_step"] = marked["time_step"].map(lambda t: t and f"t={t}")
    at = [" ".join(filter(None, row)) for row in marked.itertuples(index=False)]
    return texts.drop(columns=found).assign(at=at)


def _print_table(texts: pd.DataFrame) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in texts.columns:
        if name in NUMBERS:
            table.add_column(name, justify="right", no_wrap=True)
        else:
            longest = int(texts[name].str.len().max())
            table.add_column(name, overflow="fold", min_width=min(longest, READABLE))
    for row in texts.itertuples(index=False):
        table.add_row(*(Text(text) for text in row))
    Console().print(table)
