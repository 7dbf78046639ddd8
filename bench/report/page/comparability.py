"""Find rows of a report that stand side by side and are not comparable."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.report.distance_scale import LEAST_RATIO, distance_scales
from bench.store.aggregation import of_models
from bench.store.other_neurons import is_marked, without_mark
from bench.store.schema import (
    COMPARABLE_BY,
    COMPARABLE_WITHIN_MODEL,
    HASHES,
    INCOMPLETE,
    OK,
    TIMED_UNIT,
    UNPUBLISHED,
)
from bench.system.formatting import compact, short_hash

GROUP = ["dataset", "metric", "split"]
IDENTITY = ["cell_key", "model", "backend", "seed"]
DIFFERENCES = {
    "protocol": "protocols",
    "protocol_hash": "values of the protocol",
    "dataset_variant": "parts or replacements of the dataset",
    "dataset_fingerprint": "contents of the dataset",
    "train_images": "numbers of training images",
    "n": "numbers of images",
    "extractor": "extractors",
    "extractor_sha256": "weights of the extractor",
    "metric_version": "versions of the metric",
    "epoch_selection": "choices of the epoch",
    "unit": "units",
    "higher_is_better": "directions",
    "model_version": "versions of the model",
}
# Columns that are the same for all metrics of a cell.
OF_THE_CELL = {
    "protocol",
    "protocol_hash",
    "dataset_variant",
    "train_images",
    "dataset_fingerprint",
    "model_version",
}
SHOWN = 4


@dataclass(frozen=True)
class ComparisonWarning:
    """One difference that rules out a comparison.

    Attributes:
        dataset: dataset of the rows.
        field: column that differs.
        text: the difference in words.
        values: each value, and the cells that have it.
        metrics: metrics that differ, with their split; empty if all do.
    """

    dataset: str
    field: str
    text: str
    values: tuple[tuple[str, str], ...]
    metrics: tuple[str, ...]

    def __str__(self) -> str:
        values = "; ".join(f"{value}: {cells}" for value, cells in self.values)
        metrics = f" in {', '.join(self.metrics)}" if self.metrics else ""
        return f"{self.text}{metrics}. {values}."


def comparison_warnings(rows: pd.DataFrame) -> list[ComparisonWarning]:
    """Return what a reader must know before comparing rows of a dataset, metric and split.

    Args:
        rows: rows of a run, as :func:`bench.load_results` returns them. Only ``ok`` rows of models
            are considered.

    Returns:
        Backends that compute another neuron first, then networks that no paper describes, then
        incomplete datasets, then unusable distances, then each difference once, with all metrics
        that have it. Cells are compared, not rows: a metric can have several ``n`` within a cell.
    """
    known = of_models(rows[rows["status"] == OK])
    return [
        *_other_neurons(known),
        *_unpublished(known),
        *_incomplete(known),
        *_unusable(rows),
        *_differences(known),
    ]


def _other_neurons(rows: pd.DataFrame) -> Iterator[ComparisonWarning]:
    marked = rows[rows["backend"].map(is_marked).astype(bool)]
    for (dataset, backend), group in marked.groupby(["dataset", "backend"], sort=False):
        name = without_mark(str(backend))
        text = (
            f"{dataset}: the backend {name} computes another neuron than it is asked for, so its "
            f"numbers are not of these models (bench check backend {name} shows the difference)"
        )
        values = (("another neuron", _cells(group, rows)),)
        yield ComparisonWarning(str(dataset), "neuron_verdict", text, values, ())


def _unpublished(rows: pd.DataFrame) -> Iterator[ComparisonWarning]:
    pattern = rf"\+{re.escape(UNPUBLISHED)}([^+]+)"
    names = rows["model_version"].astype("string").str.extract(pattern, expand=False)
    for (dataset, name), group in rows.groupby(["dataset", names], sort=False):
        text = f"{dataset}: networks that no paper describes, so nothing published compares"
        values = ((str(name), _cells(group, rows)),)
        yield ComparisonWarning(str(dataset), "model_version", text, values, ())


def _incomplete(rows: pd.DataFrame) -> Iterator[ComparisonWarning]:
    parts = rows[rows["dataset_variant"].isin(INCOMPLETE)]
    for (name, variant), group in parts.groupby(["dataset", "dataset_variant"]):
        dataset = str(name)
        text = (
            f"{dataset}: {INCOMPLETE[str(variant)]}, so nothing here is comparable with results on "
            "the complete dataset"
        )
        values = ((str(variant), _cells(group, rows)),)
        yield ComparisonWarning(dataset, "dataset_variant", text, values, ())


def _unusable(rows: pd.DataFrame) -> Iterator[ComparisonWarning]:
    for scale in distance_scales(rows):
        if not scale.usable:
            text = (
                f"{scale.dataset}: {scale.metric} is unusable, because noise is less than "
                f"{LEAST_RATIO} times as far from the reference as real images"
            )
            ends = (scale.real, scale.noise)
            values = tuple((compact(end["value"]), str(end["model"])) for end in ends)
            yield ComparisonWarning(scale.dataset, "value", text, values, ())


def _differences(rows: pd.DataFrame) -> Iterator[ComparisonWarning]:
    differing: dict[tuple[Any, ...], dict[str, pd.DataFrame]] = {}
    for field in (*COMPARABLE_BY, *COMPARABLE_WITHIN_MODEL):
        considered = rows[rows["unit"] != TIMED_UNIT] if field == "n" else rows
        within = ["model"] if field in COMPARABLE_WITHIN_MODEL else []
        for (dataset, metric, split, *model), group in _differing(considered, field, within):
            name = str(metric) if pd.isna(split) else f"{metric} ({split})"
            values = tuple(sorted(_text(group[field]).unique()))
            differing.setdefault((dataset, field, *model, values), {})[name] = group
    for (dataset, field, *_), groups in differing.items():
        cells = pd.concat(groups.values()).drop_duplicates([*IDENTITY, field])
        metrics = () if field in OF_THE_CELL else tuple(groups)
        text = f"{dataset}: different {DIFFERENCES[field]}"
        yield ComparisonWarning(dataset, field, text, _values(cells, field), metrics)


def _differing(
    rows: pd.DataFrame, field: str, within: list[str]
) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Yield groups of rows whose cells do not all have the same values of a column."""
    if rows[field].nunique(dropna=False) < 2:
        return
    keys = [*GROUP, *within]
    columns = dict.fromkeys([*keys, *IDENTITY, field, "protocol"])
    distinct = rows[[*columns]].drop_duplicates()
    grouped = distinct.groupby(keys, dropna=False, sort=False, observed=True)
    codes = _text(distinct[field]).groupby(grouped.ngroup())
    for key, group in distinct[codes.transform("nunique") > 1].groupby(
        keys, dropna=False, sort=False, observed=True
    ):
        by_cell = _text(group[field]).groupby(group["cell_key"])
        if by_cell.agg(frozenset).nunique() > 1:
            yield key, group


def _text(values: pd.Series) -> pd.Series:
    return values.astype("string").fillna("").astype(object)


def _values(cells: pd.DataFrame, field: str) -> tuple[tuple[str, str], ...]:
    by_value = cells.groupby(field, dropna=False, sort=True)
    return tuple((_value(value, field, part), _cells(part, cells)) for value, part in by_value)


def _value(value: Any, field: str, cells: pd.DataFrame) -> str:
    if pd.isna(value):
        return "none"
    if field == "protocol_hash":
        return f"{cells['protocol'].iloc[0]} ({short_hash(value)})"
    return short_hash(value) if field in HASHES else str(value)


def _cells(part: pd.DataFrame, everyone: pd.DataFrame) -> str:
    """Return the cells of a part by model and backend, with the seed if it tells them apart."""
    others = everyone[~everyone["cell_key"].isin(part["cell_key"])]
    taken = set(zip(others["model"], others["backend"], strict=True))
    names = []
    for name, cells in part.groupby(["model", "backend"], sort=False):
        seeds = ", ".join(str(seed) for seed in sorted(cells["seed"].unique()))
        names.append("/".join(map(str, name)) + (f" seed {seeds}" if name in taken else ""))
    if len(names) <= SHOWN:
        return ", ".join(names)
    return f"{part['cell_key'].nunique()} cells of {', '.join(part['model'].unique())}"
