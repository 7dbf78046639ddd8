"""The table that closes a run."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.store.aggregation import across_seeds, whole_models
from bench.store.run_directory import INCOMPLETE


@dataclass(frozen=True)
class Column:
    """One number of the table.

    Attributes:
        metric: its name.
        split: the split that it is shown for.
        heading: in two lines.
        form: how it is printed.
        unit: what it is divided by first.
    """

    metric: str
    split: str
    heading: str
    form: str
    unit: float = 1


COLUMNS = (
    Column("reconstruction_loss", "test", "recon.\nloss", "{:.4f}"),
    Column("ssim", "test", "\nSSIM", "{:.3f}"),
    Column("fid", "generated", "\nFID", "{:.1f}"),
    Column("fad", "generated", "\nFAD", "{:.3g}"),
    Column("firing_rate", "test", "firing\nrate", "{:.3f}"),
    Column("energy", "generated", "sample\nnJ", "{:.0f}", 1e3),
    Column("training_throughput", "train", "train\nimg/s", "{:.0f}"),
)


def print_summary(rows: pd.DataFrame, out: Path, console: Console) -> None:
    """Print the cells, then the seeds taken together, then what a reader has to know of them.

    That is what is incomplete, skipped or failed, and where the files are.
    """
    console.print(_table(rows))
    seeds = _seeds_table(rows)
    if seeds is not None:
        console.print("Over seeds: mean ± half of the 95 % interval", highlight=False)
        console.print(seeds)
    incomplete = rows[rows["dataset_variant"].isin(INCOMPLETE)].drop_duplicates("dataset")
    for dataset, variant in zip(incomplete["dataset"], incomplete["dataset_variant"], strict=True):
        console.print(f"* {dataset}: {INCOMPLETE[variant]}", markup=False, highlight=False)
    for status in ("skipped", "failed"):
        for line in _reasons(rows[rows["status"] == status]):
            console.print(f"{status}: {line}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"Rows: {out / 'results.csv'} and results.parquet. Images: {out / 'cells'}/*/images/*.png",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _table(rows: pd.DataFrame) -> Table:
    shown = whole_models(rows)
    columns = [column for column in COLUMNS if _has(shown, column)]
    table = _empty_table(["model", "backend", "dataset", "seed"], columns)
    named = shown["metric"].isin([column.metric for column in COLUMNS])
    for _, cell in shown[named].groupby("cell_key", sort=False):
        names = [*_names(cell.iloc[0]), str(cell.iloc[0]["seed"])]
        table.add_row(*map(escape, names), *(_value(cell, column) for column in columns))
    return table


def _seeds_table(rows: pd.DataFrame) -> Table | None:
    """Mean and half of the 95 % interval over seeds; None where no cell has a second seed."""
    together = across_seeds(whole_models(rows))
    together = together[together["seeds"] > 1]
    columns = [column for column in COLUMNS if _has(together, column)]
    if not columns:
        return None
    table = _empty_table(["model", "backend", "dataset", "seeds"], columns)
    keys = ["model", "backend", "dataset", "protocol_hash"]
    for _, group in together.groupby(keys, sort=False):
        names = [f"{name}\n" for name in (*_names(group.iloc[0]), str(group["seeds"].max()))]
        table.add_row(*map(escape, names), *(_interval(group, column) for column in columns))
    return table


def _empty_table(names: list[str], columns: list[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for heading in names:
        table.add_column(heading, no_wrap=True, overflow="fold", vertical="bottom")
    for column in columns:
        table.add_column(column.heading, justify="right", no_wrap=True, vertical="bottom")
    return table


def _has(rows: pd.DataFrame, column: Column) -> bool:
    """Whether any row fills the column; one that nothing fills is left out."""
    return bool(rows.loc[rows["metric"] == column.metric, "value"].notna().any())


def _names(row: pd.Series) -> list[str]:
    mark = "*" if row["dataset_variant"] in INCOMPLETE else ""
    return [row["model"], row["backend"], f"{row['dataset']}{mark}"]


def _select(rows: pd.DataFrame, column: Column) -> pd.DataFrame:
    rows = rows[rows["metric"] == column.metric]
    measured = rows[rows["split"] == column.split]
    return rows if measured.empty else measured


def _value(cell: pd.DataFrame, column: Column) -> str:
    rows = _select(cell, column)
    if rows.empty:
        return ""
    row = rows.iloc[0]
    if row["status"] != "ok":
        return {"not_applicable": "-"}.get(row["status"], row["status"])
    return column.form.format(row["value"] / column.unit)


def _interval(group: pd.DataFrame, column: Column) -> str:
    rows = _select(group, column)
    if rows.empty:
        return "-\n"
    row = rows.iloc[0]
    mean, half = row["value"] / column.unit, (row["ci_high"] - row["value"]) / column.unit
    return f"{column.form.format(mean)}\n±{column.form.format(half)}"


def _reasons(rows: pd.DataFrame) -> list[str]:
    """Each reason once, with the cells (or, where many, their number) that it holds for."""
    lines = []
    for reason, group in rows.groupby("reason", sort=False):
        cells = group.drop_duplicates("cell_key")
        names = [
            f"{row.model}/{row.backend}/{row.dataset}/seed {row.seed}" for row in cells.itertuples()
        ]
        shown = (
            ", ".join(names)
            if len(names) <= 3
            else f"{len(names)} cells of " + ", ".join(cells["dataset"].unique())
        )
        lines.append(f"{shown}: {reason}")
    return lines
