"""The table that closes ``bench run``."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.report.distance_scale import distance_scales
from bench.store.aggregation import across_seeds, whole_models
from bench.store.declarations import headlines
from bench.store.other_neurons import footnotes, mark_other_neurons
from bench.store.schema import (
    CELL,
    CELLS,
    CSV_FILE,
    DATASET,
    FAILED,
    IMAGES_FOLDER,
    INCOMPLETE,
    MODEL,
    NOT_APPLICABLE,
    NOT_ASKED,
    NOT_INSTALLED,
    OK,
    SKIPPED,
    STATUS_WORDS,
    TABLE_FILE,
    Headline,
)
from bench.system.formatting import compact, readable_scale

NAMED = 3
UNIT_WIDTH = 5
NO_NUMBER = "-"
Columns = Mapping[str, Headline]


def print_summary(rows: pd.DataFrame, out: Path, console: Console) -> None:
    """Print the main metrics of each cell, their means over seeds, and what is missing.

    Args:
        rows: rows of the cells of one command.
        out: the run directory that has these rows.
        console: where to print.
    """
    rows = mark_other_neurons(rows)
    columns = headlines(out, rows["metric"], "summary")
    shown, units = _scaled(whole_models(rows), columns)
    console.print(_cells_table(_without_skipped(shown), columns, units))
    seeds = _seeds_table(shown, columns, units)
    if seeds is not None:
        console.print("Over seeds: mean ± half of the 95 % interval", highlight=False)
        console.print(seeds)
    for note in footnotes(rows["backend"]):
        console.print(note, markup=False, highlight=False)
    incomplete = rows[rows["dataset_variant"].isin(INCOMPLETE)].drop_duplicates("dataset")
    for dataset, variant in zip(incomplete["dataset"], incomplete["dataset_variant"], strict=True):
        console.print(f"* {dataset}: {INCOMPLETE[variant]}", markup=False, highlight=False)
    for status in (NOT_INSTALLED, SKIPPED, FAILED):
        # A metric that is unavailable to models is so to a dataset's cells: once is enough.
        told = rows if status == FAILED else rows[rows["kind"] != DATASET]
        for line in _reasons(told[told["status"] == status]):
            console.print(f"{_word(status)}: {line}", markup=False, highlight=False, soft_wrap=True)
    for scale in distance_scales(rows):
        if not scale.usable:
            real, noise = (compact(end["value"]) for end in (scale.real, scale.noise))
            console.print(
                f"unusable: {scale.metric} on {scale.dataset}: {real} for real images, {noise} for "
                "noise",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    models = rows[rows["kind"] == MODEL]
    left_out = models.loc[models["status"] == NOT_ASKED, "metric"].nunique()
    if left_out:
        total = models["metric"].nunique()
        console.print(f"not asked: {left_out} of {total} metrics", highlight=False)
    console.print(
        f"Rows: {out / CSV_FILE} and {TABLE_FILE}. Images: {out / CELLS}/*/{IMAGES_FOLDER}/*.png",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _without_skipped(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows without the cells that are skipped as a whole, whose reason stands below."""
    reasons = rows["status"].isin([SKIPPED, NOT_ASKED, NOT_INSTALLED])
    ran = (~reasons).groupby(rows["cell_key"]).transform("any")
    return rows[ran] if ran.any() else rows


def _scaled(rows: pd.DataFrame, columns: Columns) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return rows in units that suit each main metric, and these units by metric."""
    rows, units = rows.copy(), {}
    for metric in columns:
        own = _select(rows, metric, columns[metric]).dropna(subset="value")
        if not own.empty:
            scale = readable_scale(str(own["unit"].iloc[0]), own["value"])
            rows.loc[rows["metric"] == metric, ["value", "ci_low", "ci_high"]] *= scale.factor
            units[metric] = scale.unit.removesuffix(" per image")
    return rows, units


def _cells_table(rows: pd.DataFrame, columns: Columns, units: Mapping[str, str]) -> Table:
    columns = _filled(rows, columns)
    table = _empty_table([*CELL, "seed"], columns, units)
    for _, cell in rows[rows["metric"].isin(columns)].groupby("cell_key", sort=False):
        names = [f"{name}\n" for name in (*_names(cell.iloc[0]), str(cell.iloc[0]["seed"]))]
        table.add_row(*map(escape, names), *(_value(cell, *column) for column in columns.items()))
    return table


def _seeds_table(rows: pd.DataFrame, columns: Columns, units: Mapping[str, str]) -> Table | None:
    """Return means over seeds, or None if no cell has a second seed."""
    means = across_seeds(rows)
    means = means[means["seeds"] > 1]
    columns = _filled(means, columns)
    if not columns:
        return None
    table = _empty_table([*CELL, "seeds"], columns, units)
    for _, group in means.groupby([*CELL, "protocol_hash"], sort=False):
        names = [f"{name}\n" for name in (*_names(group.iloc[0]), str(group["seeds"].max()))]
        table.add_row(*map(escape, names), *(_mean(group, *column) for column in columns.items()))
    return table


def _empty_table(names: list[str], columns: Columns, units: Mapping[str, str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for heading in names:
        table.add_column(heading, no_wrap=True, overflow="fold", vertical="bottom")
    for metric, column in columns.items():
        unit = units.get(metric, "")
        words = f"{column.short or column.label} {unit if len(unit) <= UNIT_WIDTH else ''}"
        heading = words.strip().replace(" ", "\n")
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    return table


def _filled(rows: pd.DataFrame, columns: Columns) -> Columns:
    """Return the columns that any row has a value for."""
    measured = set(rows.loc[rows["value"].notna(), "metric"])
    return {metric: column for metric, column in columns.items() if metric in measured}


def _names(row: pd.Series) -> list[str]:
    mark = "*" if row["dataset_variant"] in INCOMPLETE else ""
    return [row["model"], row["backend"], f"{row['dataset']}{mark}"]


def _select(rows: pd.DataFrame, metric: str, column: Headline) -> pd.DataFrame:
    """Return the rows of a metric, of the headline's split if it has one."""
    rows = rows[rows["metric"] == metric]
    return rows if column.split is None else rows[rows["split"] == column.split]


def _value(cell: pd.DataFrame, metric: str, column: Headline) -> str:
    own, rows = _select(cell, metric, column), cell[cell["metric"] == metric]
    if rows.empty:
        return ""
    # A row that says why there is no number has no split. A value of another split is none.
    lacking = rows[rows["status"] != OK]
    if own.empty and lacking.empty:
        return NO_NUMBER
    row = (lacking if own.empty else own).iloc[0]
    if row["status"] == OK:
        return _with_interval(row)
    return NO_NUMBER if row["status"] == NOT_APPLICABLE else _word(row["status"])


def _mean(group: pd.DataFrame, metric: str, column: Headline) -> str:
    rows = _select(group, metric, column)
    if rows.empty:
        return f"{NO_NUMBER}\n"
    return _with_interval(rows.iloc[0])


def _word(status: str) -> str:
    return STATUS_WORDS.get(status, status)


def _with_interval(row: pd.Series) -> str:
    """Return a value and, on a line below, half of its interval; an empty line if it has none."""
    half = (row["ci_high"] - row["ci_low"]) / 2
    return f"{compact(row['value'])}\n{'' if pd.isna(half) else f'±{compact(half, 2)}'}"


def _reasons(rows: pd.DataFrame) -> list[str]:
    """Return each reason once, with its cells or, if there are many, their number."""
    lines = []
    for reason, group in rows.groupby("reason", sort=False):
        cells = group.drop_duplicates("cell_key")
        names = [
            f"{row.model}/{row.backend}/{row.dataset}/seed {row.seed}" for row in cells.itertuples()
        ]
        if len(names) > NAMED:
            names = [f"{len(names)} cells of {', '.join(cells['dataset'].unique())}"]
        lines.append(f"{', '.join(names)}: {reason}")
    return lines
