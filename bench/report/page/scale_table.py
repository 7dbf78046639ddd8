"""The table of the scale of Fréchet distances: real images and noise."""

from typing import Any

import pandas as pd

from bench.report.distance_scale import distance_scales
from bench.report.page.sortable_table import (
    SortableTable,
    TableColumn,
    TableEntry,
    count,
    measured,
    word,
)
from bench.system.formatting import with_interval

COLUMNS = (
    TableColumn("distance"),
    TableColumn("dataset"),
    TableColumn("real images", "other images of the dataset than the reference", True),
    TableColumn("noise", "each pixel has its mean and variance in the dataset", True),
    TableColumn("ratio", "noise divided by real images", True),
    TableColumn("use"),
    TableColumn("n", "number of real images", True),
    TableColumn("extractor"),
    TableColumn("protocol"),
)


def scale_table(rows: pd.DataFrame) -> SortableTable | None:
    """Return the distances of real images and of noise; None if there are none."""
    body = tuple(
        (
            word(scale.metric),
            word(scale.dataset),
            _end(scale.real),
            _end(scale.noise),
            measured(scale.ratio),
            word("usable" if scale.usable else "unusable"),
            count(scale.real["n"]),
            *(word(scale.real[name]) for name in ("extractor", "protocol")),
        )
        for scale in distance_scales(rows)
    )
    caption = "The scale of the Fréchet distances: real images and noise, scored as samples."
    return SortableTable("scales", caption, COLUMNS, body) if body else None


def _end(row: "pd.Series[Any]") -> TableEntry:
    text = with_interval(row["value"], row["ci_low"], row["ci_high"])
    return TableEntry(text, float(row["value"]))
