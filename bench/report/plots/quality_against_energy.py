"""Quality against energy, with the Pareto front."""

from math import inf
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.plots.curves import Curves
from bench.report.plots.plot import NotDrawnError, Plot
from bench.report.plots.plot_data import (
    SEED,
    add_seed_means,
    best_estimates,
    groups,
    headline_rows,
    measured_rows,
)
from bench.report.plots.style import (
    FILLS,
    GREY,
    LINE_INCHES,
    add_legend,
    hide_panels,
    label_axis,
    legend_handle,
    legend_height,
    log_if_wide,
    panel_grid,
    text_height,
    wrap_text,
)
from bench.report.query import records
from bench.report.run_reader import Run
from bench.store.aggregation import whole_models
from bench.store.other_neurons import is_marked

ENERGY = "energy"
FRONT = "Pareto front"
FRONT_LINESTYLE = (0, (4, 2))
COLUMNS = 2
PANEL_INCHES = 2.5
TITLE_INCHES = 2.9
CELL = [
    "label", "model", "model_version", "backend", "dataset", "dataset_fingerprint",
    "protocol_hash", "train_images", "split",
]  # fmt: skip
OF_ENERGY = [
    "metric_label", "metric_version", "unit", "higher_is_better", "n", "epoch_selection", "value",
    "ci_low", "ci_high",
]  # fmt: skip
"""Columns of an energy that stand next to the columns of a quality, with the prefix ``energy_``."""
PANEL = [
    "metric", "context", "energy_metric_version", "energy_unit", "energy_n",
    "energy_epoch_selection",
]  # fmt: skip
"""Columns that points of a panel agree in."""


class QualityAgainstEnergy(Plot):
    """Quality of images against the energy that they take, with the Pareto front."""

    title = "Quality against energy"
    caption = (
        "Reconstruction loss against the energy per reconstructed image, and Fréchet distances "
        "against the energy per sampled image: lower left is better. Small points are seeds, large "
        "ones their mean; error bars: 95 % interval over seeds, or over images of a single seed. "
        "The dashed line joins the Pareto front, whose points are ringed: no other point is both "
        "better and cheaper."
    )
    order = 20

    def draw(self, run: Run) -> tuple[Figure, pd.DataFrame]:
        """Draw a panel per quality metric and context: energy across, quality up.

        The data has quality and energy side by side, a row per seed and one for the mean;
        ``pareto`` marks the points of the front.
        """
        rows = _joined(run)
        return _figure(rows, Curves(rows, run)), rows


def _joined(run: Run) -> pd.DataFrame:
    quality = add_seed_means(headline_rows(run, "quality_against_energy"), run)
    energy = add_seed_means(measured_rows(run, [ENERGY], whole_models), run)
    on = [*CELL, "estimate", "seed", "seeds"]
    renamed = {name: f"{ENERGY}_{name}" for name in OF_ENERGY}
    joined = quality.merge(energy[[*on, *OF_ENERGY]].rename(columns=renamed), on=on)
    if joined.empty:
        metrics = ", ".join(quality["metric"].unique())
        raise NotDrawnError(f"no cell has both energy and one of {metrics} for the same images")
    return joined.assign(pareto=_pareto(joined)).reindex(
        columns=[
            "metric", "metric_label", "context", "unit", "higher_is_better", *CELL, "protocol", "n",
            "extractor", "extractor_sha256", "epoch_selection", "estimate", "seed", "seeds",
            "value", "ci_low", "ci_high", *renamed.values(), "pareto",
        ]
    )  # fmt: skip


def _pareto(rows: pd.DataFrame) -> pd.Series:
    """Mark each panel's points that no other point equals or beats in both and beats in one.

    Backends that compute another neuron are not ranked.
    """
    front = []
    for _, part in groups(rows[~rows["backend"].map(is_marked).astype(bool)], PANEL):
        points = best_estimates(part, ["label", "backend"]).sort_values(["energy_value", "value"])
        cheaper = points["value"].cummin().shift(fill_value=inf)
        front += list(points.index[points["value"] < cheaper])
    return pd.Series(rows.index.isin(front), index=rows.index)


def _figure(rows: pd.DataFrame, curves: Curves) -> Figure:
    fills = dict(zip(curves.backends, FILLS * len(curves.backends), strict=False))
    parts = [part for _, part in groups(rows, PANEL)]
    several_versions = rows["energy_metric_version"].nunique(dropna=False) > 1
    titles = [_title(part.iloc[0], several_versions) for part in parts]
    heights = [
        PANEL_INCHES + text_height(titles[i : i + COLUMNS]) - LINE_INCHES
        for i in range(0, len(parts), COLUMNS)
    ]
    names = [*curves.models, *curves.backends, FRONT]
    figure, axes = panel_grid(COLUMNS, heights, legend_height(names))
    for ax, part, title in zip(axes.flat, parts, titles, strict=False):
        _draw_panel(ax, part, curves, fills)
        ax.set_title(title, loc="left")
    hide_panels(axes.flat[len(parts) :])
    add_legend(figure, _legend_entries(curves, fills))
    return figure


def _title(row: pd.Series, several_versions: bool) -> str:
    """Return a panel's title, which says where energy and quality were measured differently."""
    parts = [f"{row['split']}: {row['context']}"]
    if row["energy_n"] != row["n"]:
        parts.append(f"energy over n = {row['energy_n']}")
    if row["energy_epoch_selection"] != row["epoch_selection"]:
        parts.append(
            f"epoch by {row['epoch_selection']}, energy's by {row['energy_epoch_selection']}"
        )
    if several_versions:
        parts.append(f"energy version {row['energy_metric_version']}")
    return wrap_text("; ".join(parts), TITLE_INCHES)


def _draw_panel(ax: Axes, rows: pd.DataFrame, curves: Curves, fills: dict[str, Any]) -> None:
    for row in records(rows[rows["estimate"] == SEED]):
        style = curves.models[row["label"]]
        ax.plot(
            row["energy_value"], row["value"], marker=style.marker, color=style.colour, alpha=0.4,
            markersize=2.2, markeredgewidth=0,
        )  # fmt: skip
    for row in records(best_estimates(rows, ["label", "backend"])):
        _draw_point(ax, row, curves, fills)
    front = rows[rows["pareto"]].sort_values("energy_value")
    ax.plot(
        front["energy_value"], front["value"], color=GREY, linestyle=FRONT_LINESTYLE,
        linewidth=0.9, marker="o", markersize=10, fillstyle="none", markeredgewidth=0.8, zorder=1.5,
    )  # fmt: skip
    log_if_wide(ax, rows["energy_value"], "x")
    log_if_wide(ax, rows["value"], "y")
    first = rows.iloc[0]
    label_axis(ax.yaxis, first, rows["value"], 2.2)
    labelled = ("metric_label", "unit", "higher_is_better")
    of_energy = pd.Series({name: first[f"{ENERGY}_{name}"] for name in labelled})
    label_axis(ax.xaxis, of_energy, rows["energy_value"], 2.9)


def _draw_point(ax: Axes, row: dict[str, Any], curves: Curves, fills: dict[str, Any]) -> None:
    """Draw a large point with its intervals of energy and quality.

    Args:
        ax: the panel.
        row: the row of the point.
        curves: styles by model.
        fills: marker fill style by backend.
    """
    style = curves.models[row["label"]]
    x, y = row["energy_value"], row["value"]
    interval = [row["energy_ci_low"], row["energy_ci_high"]]
    ax.plot(interval, [y, y], color=style.colour, linewidth=0.9, zorder=2)
    ax.plot([x, x], [row["ci_low"], row["ci_high"]], color=style.colour, linewidth=0.9, zorder=2)
    ax.plot(
        x, y, marker=style.marker, color=style.colour, markersize=6,
        fillstyle=fills[row["backend"]], markerfacecoloralt="white", zorder=3,
    )  # fmt: skip


def _legend_entries(curves: Curves, fills: dict[str, Any]) -> list[tuple[Line2D, str]]:
    models = [(legend_handle(style), name) for name, style in curves.models.items()]
    backends = [
        (
            Line2D(
                [], [], color=GREY, marker="o", linestyle="none", fillstyle=fills[name],
                markerfacecoloralt="white", markersize=6,
            ),
            name,
        )
        for name in curves.backends
    ]  # fmt: skip
    front = Line2D(
        [], [], color=GREY, linestyle=FRONT_LINESTYLE, marker="o", markersize=8, fillstyle="none"
    )
    return [*models, *backends, (front, FRONT)]
