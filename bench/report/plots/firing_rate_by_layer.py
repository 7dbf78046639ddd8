"""Firing rate by layer."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.plots.dots import draw_dots
from bench.report.plots.plot import Plot
from bench.report.plots.plot_data import add_seed_means, groups, measured_rows, series_names
from bench.report.plots.style import (
    LINE_INCHES,
    SeriesStyle,
    add_legend,
    escape_text,
    hide_panels,
    label_axis,
    legend_handle,
    legend_height,
    panel_grid,
    series_styles,
    text_height,
    wrap_text,
)
from bench.report.run_reader import Run
from bench.store.schema import GENERATED, TEST

METRIC = "firing_rate"
SPLITS = (TEST, GENERATED)
SHOWN = [
    "metric", "metric_label", "split", "context", "unit", "higher_is_better", "label", "model",
    "model_version", "backend", "dataset", "protocol", "protocol_hash", "n", "layer", "estimate",
    "seed", "seeds", "value", "ci_low", "ci_high",
]  # fmt: skip
LAYER_INCHES = 0.145
TITLE_INCHES = 2.5


class FiringRateByLayer(Plot):
    """Firing rate of each spiking layer, in the order in which the layers run."""

    title = "Firing rate by layer"
    caption = (
        "Spikes per neuron and time step of each spiking layer, while test images are "
        "reconstructed (test) and while images are sampled (generated). Small points are seeds; "
        "the large one is their mean with the 95 % interval over seeds, if there are several."
    )
    order = 50

    def draw(self, run: Run) -> tuple[Figure, pd.DataFrame]:
        """Draw a row of panels per model and dataset, and a panel per split.

        The data has a row per seed and layer, and one for the mean if there are several seeds.
        """
        rows = measured_rows(run, [METRIC], _by_layer)
        rows = add_seed_means(rows, run).reindex(columns=SHOWN)
        backends = set(rows["backend"])
        styles = series_styles(series_names(run)[1])
        return _figure(rows, {k: v for k, v in styles.items() if k in backends}), rows


def _by_layer(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["layer"].notna() & rows["time_step"].isna()]


def _figure(rows: pd.DataFrame, styles: dict[str, SeriesStyle]) -> Figure:
    # The number of images differs between the splits, which share a row.
    shared = rows.assign(shared=rows["context"].str.replace(r", n=\w+", "", regex=True))
    parts = [part for _, part in groups(shared, ["label", "shared"])]
    splits = [split for split in SPLITS if split in set(rows["split"])]
    titles = [[_title(part, split) for split in splits] for part in parts]
    inner = [LAYER_INCHES * part["layer"].nunique() + 0.25 for part in parts]
    heights = [
        0.5 - LINE_INCHES + inches + text_height(row_titles)
        for inches, row_titles in zip(inner, titles, strict=True)
    ]
    figure, axes = panel_grid(len(splits), heights, legend_height([*styles]), sharey="row")
    for row, part, row_titles, inches in zip(axes, parts, titles, inner, strict=True):
        for ax, split, title in zip(row, splits, row_titles, strict=True):
            _draw_panel(ax, part[part["split"] == split], list(part["layer"].unique()), styles)
            ax.set_title(title, loc="left")
        row[0].set_ylabel(wrap_text(part["label"].iloc[0], inches))
    add_legend(figure, [(legend_handle(style), name) for name, style in styles.items()])
    return figure


def _title(part: pd.DataFrame, split: str) -> str:
    """Return the title of a panel; "" if the part has no rows of its split."""
    rows = part[part["split"] == split]
    return "" if rows.empty else wrap_text(f"{split}: {rows['context'].iloc[0]}", TITLE_INCHES)


def _draw_panel(
    ax: Axes, rows: pd.DataFrame, layers: list[str], styles: dict[str, SeriesStyle]
) -> None:
    if rows.empty:
        hide_panels([ax])
        return
    backends = sorted(rows["backend"].unique())
    middle = (len(backends) - 1) / 2
    shift: Any = rows["backend"].map({name: 0.22 * (i - middle) for i, name in enumerate(backends)})
    rows = rows.assign(at=rows["layer"].map({name: i for i, name in enumerate(layers)}) + shift)
    draw_dots(ax, rows, ["backend", "layer"], styles, size=3.6)
    ax.set(ylim=(len(layers) - 0.5, -0.5))
    ax.set_yticks(np.arange(len(layers)), [escape_text(name) for name in layers])
    ax.tick_params(axis="y", length=0)
    ax.locator_params(axis="x", nbins=4)
    label_axis(ax.xaxis, rows.iloc[0], rows["value"], 2.4)
