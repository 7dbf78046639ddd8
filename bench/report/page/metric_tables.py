"""The numbers of a run as tables: the headline, every measurement, every cell."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.report.numbers import with_interval
from bench.report.page.sortable_table import Column, Entry, Table, count, measured, word
from bench.store.aggregation import across_seeds, whole_models

# What tells settings of the same model, backend and dataset apart; shown where it does.
VARIATION = {
    "protocol": "protocol",
    "protocol_hash": "protocol hash",
    "model_version": "model version",
    "dataset_variant": "variant",
    "dataset_fingerprint": "fingerprint",
    "train_images": "training images",
    "device": "device",
}
SETTING = ["model", "backend", "dataset", *VARIATION]
# Two models, or two datasets, may differ in these and still be told apart by name.
OF = {
    "model_version": "model",
    "dataset_variant": "dataset",
    "dataset_fingerprint": "dataset",
    "train_images": "dataset",
}
HASHES = {"protocol_hash", "dataset_fingerprint"}
STATUSES = ("failed", "skipped", "not_applicable")
STATUS_WORDS = {"failed": "failed", "skipped": "skipped", "not_applicable": "n/a"}
DIRECTIONS = {True: "higher is better", False: "lower is better"}
ARROWS = {True: " ↑", False: " ↓"}


@dataclass(frozen=True)
class Headline:
    """A metric of the headline table: its name, the split that is shown, and its heading."""

    metric: str
    split: str | None
    heading: str


HEADLINES = (
    Headline("reconstruction_loss", "test", "reconstruction loss"),
    Headline("psnr", "test", "PSNR, dB"),
    Headline("ssim", "test", "SSIM"),
    Headline("fid", "generated", "FID"),
    Headline("inception_score", "generated", "Inception score"),
    Headline("fad", "generated", "FAD"),
    Headline("firing_rate", "test", "firing rate"),
    Headline("energy", "generated", "energy a sample, pJ"),
    Headline("parameter_count", None, "parameters"),
    Headline("training_throughput", "train", "training, images/s"),
)


def headline(rows: pd.DataFrame) -> Table | None:
    """One row a (model, backend, dataset): mean and interval over seeds of the main metrics.

    A setting is split further where its cells differ in protocol, device or content. None if no
    row is of a main metric.
    """
    shown = whole_models(rows)
    shown = shown[shown["metric"].isin([column.metric for column in HEADLINES])]
    columns = [column for column in HEADLINES if _measured(shown, column)]
    if shown.empty:
        return None
    names = _names(shown)
    together = across_seeds(shown)
    means = dict(iter(together.groupby(SETTING, dropna=False, sort=False, observed=True)))
    body = []
    for setting, group in shown.groupby(SETTING, dropna=False, sort=False, observed=True):
        seeds = sorted(group["seed"].dropna().unique())
        mean = means.get(setting, together.iloc[:0])
        body.append(
            (
                *(_named(name, group[name].iloc[0]) for name in names),
                Entry(str(len(seeds)), len(seeds), f"seeds {', '.join(map(str, seeds))}"),
                *(_mean(mean, group, column) for column in columns),
            )
        )
    headings = [
        *(Column(VARIATION.get(name, name)) for name in names),
        Column("seeds", "how many seeds the mean is over", True),
        *(_metric_column(shown, column) for column in columns),
    ]
    caption = (
        "Mean over seeds ± half of its 95 % interval (Student's t). No ±: one seed, which says "
        "nothing of the spread, or seeds that agree."
    )
    return Table("headline", caption, tuple(headings), tuple(body))


def measurements(rows: pd.DataFrame) -> Table | None:
    """Every metric of whole models, seeds taken together; None if nothing was measured."""
    table = _measurements(whole_models(rows))
    if table.empty:
        return None
    names = _names(table)
    headings = [
        Column("metric"),
        Column("split"),
        *(Column(VARIATION.get(name, name)) for name in names),
        Column("mean", "mean over seeds", True),
        Column("95 % low", "lower end of the interval over seeds", True),
        Column("95 % high", "upper end of the interval over seeds", True),
        Column("seeds", "how many seeds the mean is over", True),
        Column("n", "images that one value is of", True),
        Column("unit"),
        Column("better"),
        Column("epoch", "how the epoch was chosen"),
        Column("extractor"),
    ]
    body = tuple(_measurement(row, names) for row in table.to_dict("records"))
    caption = (
        "Every metric of whole models. What is by layer, time step or noise is in the plots and in "
        "results.csv."
    )
    return Table("measurements", caption, tuple(headings), body)


def cells(rows: pd.DataFrame) -> Table | None:
    """One row a cell: how it ended, and its main metrics; None if there is no cell."""
    shown = whole_models(rows)
    columns = [column for column in HEADLINES if _measured(shown, column)]
    if rows.empty:
        return None
    headings = [
        *(Column(name) for name in ("model", "backend", "dataset")),
        Column("seed", numeric=True),
        Column("status", "failed if any of its metrics is, incomplete if any was skipped"),
        Column("epoch", "the epoch whose weights were scored", True),
        *(_metric_column(shown, column) for column in columns),
        *(Column(name) for name in ("protocol", "protocol hash", "device", "cell")),
    ]
    overall = dict(iter(shown.groupby("cell_key", sort=False)))
    ends = cell_statuses(rows)
    body = []
    for key, group in rows.groupby("cell_key", sort=False):
        first = group.iloc[0]
        own = overall.get(key, shown.iloc[:0])
        status = ends[key]
        body.append(
            (
                *(word(first[name]) for name in ("model", "backend", "dataset")),
                count(first["seed"]),
                Entry(status, status="" if status == "ok" else status),
                count(group["epoch"].max()),
                *(_single(own, column) for column in columns),
                word(first["protocol"]),
                word(str(first["protocol_hash"])[:12]),
                word(first["device"]),
                word(key),
            )
        )
    return Table("cells", "Every cell, one row a seed.", tuple(headings), tuple(body))


def cell_statuses(rows: pd.DataFrame) -> "pd.Series[str]":
    """How each cell ended, by its key.

    ``failed`` if any of its rows is; ``skipped`` if it has no number because of rows that were;
    ``incomplete`` if it has numbers and skipped rows; else ``ok``.
    """
    has = {
        status: (rows["status"] == status).groupby(rows["cell_key"], sort=False).any()
        for status in ("failed", "skipped", "ok")
    }
    lacking = has["ok"].map({True: "incomplete", False: "skipped"})
    return lacking.where(has["skipped"], "ok").mask(has["failed"], "failed")


def _measurements(rows: pd.DataFrame) -> pd.DataFrame:
    table = across_seeds(rows)
    keys = [*SETTING, "metric", "split", "epoch_selection", "extractor", "metric_version"]
    known = rows[rows["status"] == "ok"]
    n = known.groupby(keys, dropna=False, sort=False, observed=True)["n"]
    numbers = n.agg(least="min", most="max").reset_index()
    return table.merge(numbers, on=keys, how="left")


def _measurement(row: Mapping[Any, Any], names: Iterable[str]) -> tuple[Entry, ...]:
    same = pd.isna(row["least"]) or row["least"] == row["most"]
    n = count(row["least"]) if same else Entry(f"{row['least']}-{row['most']}", float(row["least"]))
    better = row["higher_is_better"]
    return (
        word(row["metric"]),
        word(row["split"]),
        *(_named(name, row[name]) for name in names),
        measured(row["value"]),
        measured(row["ci_low"]),
        measured(row["ci_high"]),
        count(row["seeds"]),
        n,
        word(row["unit"] if row["unit"] != "1" else ""),
        Entry("" if pd.isna(better) else "higher" if better else "lower"),
        word(row["epoch_selection"]),
        word(row["extractor"]),
    )


def _names(rows: pd.DataFrame) -> list[str]:
    """The columns that name a setting: those of its variation only where they vary."""
    return ["model", "backend", "dataset", *(name for name in VARIATION if _varies(name, rows))]


def _varies(name: str, rows: pd.DataFrame) -> bool:
    if name not in OF:
        return rows[name].nunique(dropna=False) > 1
    return bool(rows.groupby(OF[name])[name].nunique(dropna=False).gt(1).any())


def _named(name: str, value: object) -> Entry:
    return word(str(value)[:12] if name in HASHES else value)


def _measured(rows: pd.DataFrame, column: Headline) -> bool:
    return bool(rows.loc[rows["metric"] == column.metric, "value"].notna().any())


def _metric_column(rows: pd.DataFrame, column: Headline) -> Column:
    better = rows.loc[rows["metric"] == column.metric, "higher_is_better"].dropna()
    meaning = column.metric if column.split is None else f"{column.metric}, {column.split}"
    if better.empty:
        return Column(column.heading, meaning, True)
    up = bool(better.iloc[0])
    return Column(column.heading + ARROWS[up], f"{meaning}: {DIRECTIONS[up]}", True)


def _select(rows: pd.DataFrame, column: Headline) -> pd.DataFrame:
    chosen = rows[rows["metric"] == column.metric]
    return chosen if column.split is None else chosen[chosen["split"] == column.split]


def _mean(means: pd.DataFrame, rows: pd.DataFrame, column: Headline) -> Entry:
    own = _select(means, column)
    if own.empty:
        return _without_number(rows[rows["metric"] == column.metric])
    row = own.iloc[0]
    text = with_interval(row["value"], row["ci_low"], row["ci_high"])
    return Entry(text, float(row["value"]), f"over {row['seeds']} seeds")


def _single(rows: pd.DataFrame, column: Headline) -> Entry:
    own = _select(rows, column)
    own = own[own["status"] == "ok"]
    if own.empty:
        return _without_number(rows[rows["metric"] == column.metric])
    return measured(own.iloc[0]["value"])


def _without_number(rows: pd.DataFrame) -> Entry:
    for status in STATUSES:
        reasons = rows.loc[rows["status"] == status, "reason"]
        if not reasons.empty:
            note = "" if pd.isna(reasons.iloc[0]) else str(reasons.iloc[0])
            return Entry(STATUS_WORDS[status], None, note, status)
    return Entry("")
