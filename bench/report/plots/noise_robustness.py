"""Reconstruction error against noise on the input and on the latent."""

import itertools
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.plots.curves import Curves, backend_panels, panel_context
from bench.report.plots.plot import Plot
from bench.report.plots.plot_data import (
    add_seed_means,
    best_estimates,
    groups,
    measured_rows,
)
from bench.report.plots.style import (
    GREY,
    LINE_INCHES,
    WIDTH,
    escape_text,
    label_axis,
    panel_grid,
    set_row_title,
    text_height,
    wrap_text,
)
from bench.report.query import records
from bench.report.run_reader import Run

METRICS = ["noise_robustness", "noise_robustness_to_noise_free"]
NO_NOISE = "none"
LEVEL_LINESTYLES = ((0, (6, 3)), (0, (1, 2)), (0, (3, 1, 1, 1)))
PANEL_INCHES = 1.95
SHOWN = [
    "metric", "metric_label", "split", "context", "unit", "higher_is_better", "label", "model",
    "model_version", "backend", "dataset", "protocol", "protocol_hash", "n", "noise_kind",
    "noise_level", "estimate", "seed", "seeds", "value", "ci_low", "ci_high",
]  # fmt: skip


class NoiseRobustness(Plot):
    """Reconstruction error against the level of each kind of noise."""

    title = "Robustness to noise"
    caption = (
        "Mean squared error of reconstructions under noise, against the originals and against the "
        "noise-free reconstructions. Horizontal lines: no noise, and noise that has no level. "
        "Bands: 95 % interval over seeds, or over images of a single seed."
    )
    order = 40

    def draw(self, run: Run) -> tuple[Figure, pd.DataFrame]:
        """Draw a row of panels per metric and context, and a column per kind of noise.

        The data has a row per seed, kind and level, and one for the mean over several seeds.
        """
        rows = measured_rows(run, METRICS, lambda rows: rows[rows["noise_kind"].notna()])
        rows = add_seed_means(rows, run).reindex(columns=SHOWN)
        return _figure(rows, Curves(rows, run)), rows


def _figure(rows: pd.DataFrame, curves: Curves) -> Figure:
    by = ["metric", "context", "label", "backend", "noise_kind", "noise_level"]
    points = best_estimates(rows.assign(backend_panel=backend_panels(rows)), by)
    has_level = points["noise_level"].notna() & (points["noise_kind"] != NO_NOISE)
    kinds = sorted(points.loc[has_level, "noise_kind"].unique()) or [NO_NOISE]
    levels = _level_linestyles(points[~has_level])
    by = ["context", "metric", "backend_panel"]
    parts = [part for _, part in groups(points.sort_values(by, kind="stable"), by)]
    titles = [wrap_text(panel_context(part), WIDTH - 1) for part in parts]
    heights = [PANEL_INCHES + text_height([title]) - LINE_INCHES for title in titles]
    room = curves.legend_height(levels)
    figure, axes = panel_grid(len(kinds), heights, room, sharex="col", sharey="row")
    for row, part, title in zip(axes, parts, titles, strict=True):
        for ax, kind in zip(row, kinds, strict=True):
            _draw_panel(ax, part, kind, curves, levels)
            ax.set_title(_in_words(kind), loc="left")
        label_axis(row[0].yaxis, part.iloc[0], part["value"], 1.7)
        set_row_title(row[0], title, _in_words(kinds[0]))
    for ax in axes[-1]:
        ax.set_xlabel("noise level a")
    handles = {k: Line2D([], [], color=GREY, linestyle=v) for k, v in levels.items()}
    curves.add_legend(figure, [(handle, _level_name(kind)) for kind, handle in handles.items()])
    return figure


def _level_linestyles(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the line style of each kind that is a horizontal line, no noise first."""
    kinds = sorted(rows["noise_kind"].unique(), key=lambda kind: (kind != NO_NOISE, kind))
    return dict(zip(kinds, itertools.cycle(LEVEL_LINESTYLES)))


def _level_name(kind: str) -> str:
    return "no noise" if kind == NO_NOISE else f"{kind.replace('_', ' ')} (no level)"


def _in_words(kind: str) -> str:
    """Return the title of a panel, escaped."""
    return escape_text(kind.replace("_", " "))


def _draw_panel(
    ax: Axes, rows: pd.DataFrame, kind: str, curves: Curves, levels: dict[str, Any]
) -> None:
    """Draw the curves of a kind of noise, and the levels to compare them with.

    These are horizontal lines for no noise and for the kinds on the same side, input or latent.
    """
    curves.draw(ax, rows[(rows["noise_kind"] == kind) & (kind != NO_NOISE)], "noise_level")
    side = kind.partition("_")[0]
    for row in records(rows[rows["noise_kind"].isin(levels)]):
        if NO_NOISE in (kind, row["noise_kind"]) or row["noise_kind"].partition("_")[0] == side:
            curves.draw_level(ax, row, levels[row["noise_kind"]])
    ax.set(xlabel="", ylabel="")
