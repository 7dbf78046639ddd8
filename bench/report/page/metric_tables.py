"""The numbers of a run as tables: main metrics by backend, cells and trained extractors."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.report.page.model_tables import ARROWS, DIRECTIONS, WITHOUT_NUMBER, without_number
from bench.report.page.sortable_table import (
    SortableTable,
    TableColumn,
    TableEntry,
    count,
    measured,
    word,
)
from bench.report.query import records_by
from bench.report.run_reader import Run
from bench.store.aggregation import of_models, whole_models
from bench.store.other_neurons import footnotes
from bench.store.schema import (
    CELL,
    CELL_VARIATION,
    EXTRACTOR,
    FAILED,
    HASHES,
    OK,
    SKIPPED,
    Headline,
)
from bench.system.formatting import short_hash, with_interval

# Headings of columns that tell cells of the same name apart; shown only where they do.
VARIATION = {
    "protocol": "protocol",
    "protocol_hash": "protocol hash",
    "model_version": "model version",
    "dataset_variant": "variant",
    "dataset_fingerprint": "fingerprint",
    "train_images": "training images",
    "device": "device",
}
SETTING = [*CELL, *CELL_VARIATION]
# Columns that vary only if they differ within one model, within one dataset or within both.
VARIES_WITHIN = {
    "protocol_hash": ["model", "dataset", "protocol"],
    "model_version": ["model"],
    "dataset_variant": ["dataset"],
    "dataset_fingerprint": ["dataset"],
    "train_images": ["dataset"],
}

OF_MEAN = ["split", "value", "ci_low", "ci_high", "seeds"]

Headlines = Mapping[str, Headline]
Records = list[dict[str, Any]]


def by_backend(run: Run) -> SortableTable | None:
    """Return the main metrics: mean and interval over seeds, a row per model, backend and dataset.

    Cells that differ in protocol, device or content have rows of their own.

    Returns:
        The table, or None if no row is about a main metric.
    """
    headlines = run.headlines("report")
    shown = whole_models(run.rows)
    shown = shown[shown["metric"].isin(headlines)]
    if shown.empty:
        return None
    columns = _filled(shown, headlines)
    names = naming_columns(shown)
    settings = shown.groupby(SETTING, dropna=False, sort=False, observed=True).ngroup()
    shown = shown.assign(setting=settings)
    places = ["setting", "metric"]
    means = records_by(run.across_seeds(shown, apart=["setting"]), places, OF_MEAN)
    singles = records_by(shown, places, WITHOUT_NUMBER)
    body = [
        (
            *(_named(name, group[name].iloc[0]) for name in names),
            _seeds(group),
            *(
                _mean(means.get((setting, metric), []), singles.get((setting, metric), []), main)
                for metric, main in columns.items()
            ),
        )
        for setting, group in shown.groupby("setting")
    ]
    headings = [
        *(TableColumn(VARIATION.get(name, name)) for name in names),
        TableColumn("seeds", "number of seeds that the mean is over", True),
        *(_metric_column(shown, *column) for column in columns.items()),
    ]
    caption = (
        "Mean over seeds ± half of its 95 % interval (Student's t). A mean without ± is from a "
        "single seed, or from seeds that agree."
    )
    return SortableTable(
        "by-backend",
        _noted(caption, shown),
        tuple(headings),
        tuple(body),
        title="Main metrics by backend",
    )


def cells(run: Run) -> SortableTable | None:
    """Return how each cell of a model ended, and its main metrics; None if there are no cells."""
    rows = of_models(run.rows)
    if rows.empty:
        return None
    shown = whole_models(rows)
    columns = _filled(shown, run.headlines("report"))
    headings = [
        *map(TableColumn, CELL),
        TableColumn("seed", numeric=True),
        TableColumn(
            "status",
            "failed if any metric failed, incomplete if any was skipped",
        ),
        TableColumn("epoch", "the epoch whose weights were evaluated", True),
        *(_metric_column(shown, *column) for column in columns.items()),
        *map(TableColumn, ("protocol", "protocol hash", "device", "cell")),
    ]
    places = records_by(shown, ["cell_key", "metric"], ["value", *WITHOUT_NUMBER])
    ends = cell_statuses(rows)
    epochs = rows.groupby("cell_key")["epoch"].max()
    body = []
    for first in rows.drop_duplicates("cell_key").to_dict("records"):
        key = first["cell_key"]
        status = ends[key]
        body.append(
            (
                *(word(first[name]) for name in CELL),
                count(first["seed"]),
                TableEntry(status, status="" if status == OK else status),
                count(epochs[key]),
                *(_single(places.get((key, metric), []), main) for metric, main in columns.items()),
                word(first["protocol"]),
                word(short_hash(first["protocol_hash"])),
                word(first["device"]),
                word(key),
            )
        )
    caption = _noted("Every cell, one row per seed.", rows)
    return SortableTable("cells", caption, tuple(headings), tuple(body))


def extractors(rows: pd.DataFrame) -> SortableTable | None:
    """Return the cells that trained a metric's feature extractor; None if there are none."""
    own = rows[rows["kind"] == EXTRACTOR]
    if own.empty:
        return None
    words = ("model", "dataset", "metric")
    headings = [
        TableColumn("name"),
        TableColumn("dataset"),
        TableColumn("metric"),
        TableColumn("value", "", True),
        TableColumn("n", "number of images that the value is computed from", True),
        *map(TableColumn, ("extractor", "protocol", "device", "cell")),
    ]
    body = tuple(
        (
            *(word(row[name]) for name in words),
            measured(row["value"]) if row["status"] == OK else without_number([row]),
            count(row["n"]),
            *(word(row[name]) for name in ("extractor", "protocol", "device", "cell_key")),
        )
        for row in own.to_dict("records")
    )
    caption = "Networks that were trained to extract the features that metrics compare."
    return SortableTable("extractors", caption, tuple(headings), body)


def cell_statuses(rows: pd.DataFrame) -> "pd.Series[str]":
    """Return how each cell ended, by its key.

    ``failed`` if any of its rows failed; ``skipped`` if it has no value because rows were skipped;
    ``incomplete`` if it has values and skipped rows; else ``ok``. Metrics whose package is not
    installed do not count.
    """
    has = {
        status: (rows["status"] == status).groupby(rows["cell_key"], sort=False).any()
        for status in (FAILED, SKIPPED, OK)
    }
    lacking = has[OK].map({True: "incomplete", False: SKIPPED})
    return lacking.where(has[SKIPPED], OK).mask(has[FAILED], FAILED)


def _noted(caption: str, rows: pd.DataFrame) -> str:
    """Return a caption, with the footnote of backends that compute another neuron."""
    return " ".join([caption, *footnotes(rows["backend"])])


def naming_columns(rows: pd.DataFrame) -> list[str]:
    """Return the columns that name a cell, without the variations that are equal in all rows."""
    return [*CELL, *(name for name in CELL_VARIATION if _varies(name, rows))]


def _varies(name: str, rows: pd.DataFrame) -> bool:
    if name not in VARIES_WITHIN:
        return rows[name].nunique(dropna=False) > 1
    return bool(rows.groupby(VARIES_WITHIN[name])[name].nunique(dropna=False).gt(1).any())


def _named(name: str, value: object) -> TableEntry:
    return word(short_hash(value) if name in HASHES else value)


def _seeds(group: pd.DataFrame) -> TableEntry:
    seeds = sorted(group["seed"].dropna().unique())
    return TableEntry(str(len(seeds)), len(seeds), f"seeds {', '.join(map(str, seeds))}")


def _filled(rows: pd.DataFrame, headlines: Headlines) -> Headlines:
    """Return the main metrics that any row has a value of."""
    known = set(rows.loc[rows["value"].notna(), "metric"])
    return {metric: main for metric, main in headlines.items() if metric in known}


def _metric_column(rows: pd.DataFrame, metric: str, main: Headline) -> TableColumn:
    better = rows.loc[rows["metric"] == metric, "higher_is_better"].dropna()
    meaning = metric if main.split is None else f"{metric}, {main.split}"
    if better.empty:
        return TableColumn(main.label, meaning, True)
    up = bool(better.iloc[0])
    return TableColumn(main.label + ARROWS[up], f"{meaning}: {DIRECTIONS[up]}", True)


def _of_split(rows: Records, main: Headline) -> Records:
    return [row for row in rows if main.split is None or row["split"] == main.split]


def _mean(means: Records, rows: Records, main: Headline) -> TableEntry:
    """Return the entry of a metric's mean.

    Args:
        means: its means, of all splits.
        rows: its rows, for the reason if there is no mean.
        main: declaration of the metric.
    """
    own = _of_split(means, main)
    if not own:
        return without_number(rows)
    row = own[0]
    text = with_interval(row["value"], row["ci_low"], row["ci_high"])
    return TableEntry(text, float(row["value"]), f"over {row['seeds']} seeds")


def _single(rows: Records, main: Headline) -> TableEntry:
    own = [row for row in _of_split(rows, main) if row["status"] == OK]
    return measured(own[0]["value"]) if own else without_number(rows)
