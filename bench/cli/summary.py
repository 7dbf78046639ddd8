"""The table that closes a run."""

from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

COLUMNS = {
    "reconstruction_loss": ("recon.\nloss", "{:.4f}"),
    "firing_rate": ("firing\nrate", "{:.3f}"),
    "parameter_count": ("param-\neters", "{:.2f}M"),
    "training_throughput": ("train\nimg/s", "{:.0f}"),
    "sampling_throughput": ("sample\nimg/s", "{:.0f}"),
    "peak_memory": ("peak\nMiB", "{:.0f}"),
}
INCOMPLETE = {
    "subset": "a subset of the dataset",
    "substitute": "a local file or folder in the dataset's place",
}
UNITS = {"peak_memory": 2**20, "parameter_count": 1e6}


def print_summary(rows: pd.DataFrame, out: Path, console: Console) -> None:
    """Print one line a cell, then what is incomplete, skipped or failed, and where files are."""
    console.print(_table(rows))
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
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for heading in ("model", "backend", "dataset", "seed"):
        table.add_column(heading, no_wrap=True, overflow="fold", vertical="bottom")
    for heading, _ in COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    overall = rows[rows["layer"].isna() & rows["split"].ne("generated").fillna(True)]
    sampling = rows[rows["metric"] == "sampling_throughput"]
    shown = pd.concat([overall, sampling])
    for _, cell in shown.groupby("cell_key", sort=False):
        first = cell.iloc[0]
        mark = "*" if first["dataset_variant"] in INCOMPLETE else ""
        dataset = f"{first['dataset']}{mark}"
        names = (first["model"], first["backend"], dataset, str(first["seed"]))
        table.add_row(*map(escape, names), *(_value(cell, metric) for metric in COLUMNS))
    return table


def _value(cell: pd.DataFrame, metric: str) -> str:
    rows = cell[cell["metric"] == metric]
    if rows.empty:
        return ""
    row = rows.iloc[0]
    if row["status"] != "ok":
        return {"not_applicable": "-"}.get(row["status"], row["status"])
    return COLUMNS[metric][1].format(row["value"] / UNITS.get(metric, 1))


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
