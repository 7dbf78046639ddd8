"""Where rows that a reader would set side by side are not comparable."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

GROUP = ["dataset", "metric", "split"]
IDENTITY = ["cell_key", "model", "backend", "seed"]
# What must agree, and what is said where it does not. A throughput's n is how long it was timed.
FIELDS = {
    "n": "numbers of images",
    "extractor": "extractors",
    "extractor_sha256": "weights of the extractor",
    "protocol_hash": "protocols",
    "dataset_variant": "parts or replacements of the dataset",
    "train_images": "numbers of training images",
    "dataset_fingerprint": "contents of the dataset",
    "metric_version": "versions of the metric",
    "epoch_selection": "choices of the epoch",
    "model_version": "versions of the model",
}
OF_THE_CELL = {
    "protocol_hash",
    "dataset_variant",
    "train_images",
    "dataset_fingerprint",
    "model_version",
}
INCOMPLETE = {
    "subset": "only a part of the dataset is used",
    "substitute": "a local file or folder stands in the dataset's place",
}
TIMED = "images/s"
SHOWN = 4


@dataclass(frozen=True)
class Warning:
    """One difference that forbids a comparison.

    Attributes:
        dataset: on which.
        field: the column that differs.
        text: what differs, in words.
        values: each value, and who has it.
        metrics: the metrics that are concerned, with their split; none where all are.
    """

    dataset: str
    field: str
    text: str
    values: tuple[tuple[str, str], ...]
    metrics: tuple[str, ...]

    def __str__(self) -> str:
        values = "; ".join(f"{value}: {who}" for value, who in self.values)
        metrics = f" in {', '.join(self.metrics)}" if self.metrics else ""
        return f"{self.text}{metrics}. {values}."


def warnings(rows: pd.DataFrame) -> list[Warning]:
    """What a reader has to know before rows of the same dataset, metric and split are compared.

    Args:
        rows: as :func:`bench.load_results` gives them; only ``ok`` ones are looked at.

    Returns:
        First what is no whole dataset, then each difference once, with all metrics that it
        concerns. Cells are compared, not rows: a metric may well have several n within a cell.
    """
    known = rows[rows["status"] == "ok"]
    return [*_incomplete(known), *_differences(known)]


def _incomplete(rows: pd.DataFrame) -> Iterator[Warning]:
    parts = rows[rows["dataset_variant"].isin(INCOMPLETE)]
    for (name, variant), group in parts.groupby(["dataset", "dataset_variant"]):
        dataset = str(name)
        text = (
            f"{dataset}: {INCOMPLETE[str(variant)]}, so nothing here compares with results on "
            "all of it"
        )
        yield Warning(dataset, "dataset_variant", text, ((str(variant), _who(group, rows)),), ())


def _differences(rows: pd.DataFrame) -> Iterator[Warning]:
    found: dict[tuple[Any, ...], dict[str, pd.DataFrame]] = {}
    for field in FIELDS:
        considered = rows[rows["unit"] != TIMED] if field == "n" else rows
        keys = [*GROUP, "model"] if field == "model_version" else GROUP
        for (dataset, metric, split, *model), group in _differing(considered, field, keys):
            name = str(metric) if pd.isna(split) else f"{metric} ({split})"
            values = tuple(sorted(_text(group[field]).unique()))
            found.setdefault((dataset, field, *model, values), {})[name] = group
    for (dataset, field, *_), groups in found.items():
        cells = pd.concat(groups.values()).drop_duplicates([*IDENTITY, field])
        metrics = () if field in OF_THE_CELL else tuple(groups)
        text = f"{dataset}: different {FIELDS[field]}"
        yield Warning(dataset, field, text, _values(cells, field), metrics)


def _differing(rows: pd.DataFrame, field: str, keys: list[str]) -> Iterator[tuple[Any, Any]]:
    """Groups within which not every cell has the same values of a field."""
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
    return tuple((_value(value, field, part), _who(part, cells)) for value, part in by_value)


def _value(value: Any, field: str, cells: pd.DataFrame) -> str:
    if pd.isna(value):
        return "none"
    if field == "protocol_hash":
        return f"{cells['protocol'].iloc[0]} ({str(value)[:12]})"
    return str(value)[:12] if field in {"extractor_sha256", "dataset_fingerprint"} else str(value)


def _who(part: pd.DataFrame, everyone: pd.DataFrame) -> str:
    """The cells of a part, by model and backend, and by seed where that alone is ambiguous."""
    others = everyone[~everyone["cell_key"].isin(part["cell_key"])]
    taken = set(zip(others["model"], others["backend"], strict=True))
    names = []
    for name, cells in part.groupby(["model", "backend"], sort=False):
        seeds = ", ".join(str(seed) for seed in sorted(cells["seed"].unique()))
        names.append("/".join(map(str, name)) + (f" seed {seeds}" if name in taken else ""))
    if len(names) <= SHOWN:
        return ", ".join(names)
    return f"{part['cell_key'].nunique()} cells of {', '.join(part['model'].unique())}"
