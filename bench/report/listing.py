"""List rows of a run, filtered and sorted, in the terminal."""

from collections.abc import Sequence
from pathlib import Path

import click
import pandas as pd

from bench.report.query import check_column, no_match, select
from bench.store.other_neurons import footnotes, mark_other_neurons
from bench.store.run_directory import load_results
from bench.store.schema import MODEL, OK, status_word
from bench.system.formatting import number, pipe_table

COLUMNS = ("model", "backend", "dataset", "seed", "metric", "split", "value", "n")
# Columns that are shown only if a listed row has them.
DETAILS = ("layer", "time_step", "noise_kind", "noise_level", "unit")
NAMES = ("model", "backend", "dataset", "seed", "metric", "split", "unit")
NUMBERS = {"seed", "value", "n", "time_step", "noise_level", "ci_low", "ci_high", "epoch"}
READABLE = 12
ALL = "all"


def print_rows(
    path: Path,
    conditions: Sequence[str] = (),
    sort: str | None = None,
    columns: str | None = None,
    output_format: str = "table",
) -> None:
    """Print rows of a run directory.

    Args:
        path: the run directory.
        conditions: conditions ``COLUMN=VALUE,...``; see :func:`bench.report.query.select`.
        sort: column to sort by, after a ``-`` downwards; None for the order of the run.
        columns: names separated by commas, or ``all``; None for the columns that matter.
        output_format: ``table``, ``csv``, ``md`` or ``json``.

    Raises:
        BenchError: not a run directory, or an unknown column or value.
    """
    rows = load_results(path)
    if rows.empty:
        click.echo(f"{path} has no rows yet.", err=True)
        return
    chosen = _sorted(select(rows, conditions), sort)
    if chosen.empty:
        click.echo(no_match(rows, conditions), err=True)
    shown = chosen[_columns(columns, chosen)]
    if output_format == "csv":
        click.echo(shown.to_csv(index=False), nl=False)
    elif output_format == "json":
        click.echo(shown.to_json(orient="records", indent=2, double_precision=15))
    elif not shown.empty:
        marked = mark_other_neurons(shown, rows) if "backend" in shown else shown
        if output_format == "md":
            click.echo(_markdown(_texts(marked)))
        elif columns is None:
            _print_short(chosen, marked)
        else:
            _print_table(_texts(marked))
        for note in footnotes(marked.get("backend", ())):
            click.echo(note)
        if output_format == "table":
            click.echo(f"{len(shown):,} of {len(rows):,} rows.")


def _sorted(rows: pd.DataFrame, sort: str | None) -> pd.DataFrame:
    if sort is None:
        return rows
    name = sort.removeprefix("-")
    check_column(name, rows)
    return rows.sort_values(name, ascending=not sort.startswith("-"), kind="stable")


def _columns(asked: str | None, rows: pd.DataFrame) -> list[str]:
    """Return the columns to show: ``kind`` only if a row is not about a model."""
    if asked == ALL:
        return list(rows.columns)
    if asked is not None:
        names = [name.strip() for name in asked.split(",")]
        for name in names:
            check_column(name, rows)
        return names
    details = [name for name in DETAILS if rows[name].notna().any()]
    if "unit" in details and (rows["unit"] == "1").all():
        details.remove("unit")
    kind = [] if (rows["kind"] == MODEL).all() else ["kind"]
    without_value = [] if (rows["status"] == OK).all() else ["status", "reason"]
    return [*COLUMNS, *details, *kind, *without_value]


def _texts(rows: pd.DataFrame) -> pd.DataFrame:
    """Return every entry as text."""
    return pd.DataFrame({name: _column_texts(rows[name]) for name in rows}, dtype=object)


def _column_texts(values: pd.Series) -> pd.Series:
    if pd.api.types.is_float_dtype(values):
        return values.map(number)
    return values.astype("string").fillna("").astype(object)


def _markdown(texts: pd.DataFrame) -> str:
    right = [i for i, name in enumerate(texts) if name in NUMBERS]
    return pipe_table(list(map(str, texts)), texts.to_numpy().tolist(), right)


def _print_short(rows: pd.DataFrame, shown: pd.DataFrame) -> None:
    """Print a table with what all rows share above it, and each reason once below it."""
    texts = _texts(shown.drop(columns=["status", "reason"], errors="ignore"))
    texts = _join_details(texts)
    shared = [name for name in NAMES if name in texts and len(rows) > 1]
    shared = [name for name in shared if texts[name].nunique() == 1 and texts[name].iloc[0]]
    if shared:
        click.echo(", ".join(f"{name} {texts[name].iloc[0]}" for name in shared))
    numberless = rows[rows["status"] != OK]
    reasons = numberless["reason"].fillna("no reason was recorded")
    listed = list(reasons.unique())
    texts.loc[numberless.index, "value"] = [
        f"{status_word(status)} ({listed.index(reason) + 1})"
        for status, reason in zip(numberless["status"], reasons, strict=True)
    ]
    _print_table(texts.drop(columns=[*shared, "unit"], errors="ignore"))
    for i, reason in enumerate(listed, start=1):
        click.echo(f"({i}) {reason}")


def _join_details(texts: pd.DataFrame) -> pd.DataFrame:
    """Join layer, time step and noise into one column ``at``, if there are any."""
    details = [name for name in DETAILS if name != "unit" and name in texts]
    if not details:
        return texts
    marked = texts[details].copy()
    if "time_step" in details:
        marked["time_step"] = marked["time_step"].map(lambda t: t and f"t={t}")
    at = [" ".join(filter(None, row)) for row in marked.itertuples(index=False)]
    return texts.drop(columns=details).assign(at=at)


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
