"""Quality against the number of images that a model was trained on, over protocols."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.plots.curves import Curves
from bench.report.plots.plot import NotDrawnError, Plot
from bench.report.plots.plot_data import (
    add_seed_means,
    best_estimates,
    groups,
    headline_rows,
)
from bench.report.plots.style import (
    LINE_INCHES,
    hide_panels,
    label_axis,
    log_if_wide,
    panel_grid,
    text_height,
    wrap_text,
)
from bench.report.run_reader import Run
from bench.store.schema import CELL
from bench.system.formatting import compact

COLUMNS = 2
PANEL_INCHES = 2.5
TITLE_INCHES = 2.9
BUDGET = "training_images"
MOST_TICKS = 6
NAMES = [*CELL, "model_version", "protocol", "protocol_hash", "train_images", "metric"]
PANEL = ["dataset", "metric", "n", "extractor", "metric_version", "epoch_selection", "unit"]
"""Columns that the points of a panel agree in; protocols and training images can differ."""
SHOWN = [
    *PANEL, "metric_label", "split", "higher_is_better", "label", "model", "model_version",
    "backend", "protocol", "protocol_hash", "train_images", BUDGET, "estimate", "seed", "seeds",
    "value", "ci_low", "ci_high",
]  # fmt: skip


class QualityAgainstTrainingImages(Plot):
    """Reconstruction loss and Fréchet distances against the training budget."""

    title = "Quality against training images"
    caption = (
        "Reconstruction loss and Fréchet distances against the number of training images times "
        "epochs. A line joins the protocols of one model on one backend; the band is the 95 % "
        "interval over seeds, or over images of a single seed. Protocols can differ in more than "
        "the budget. Distances of different extractors have panels of their own."
    )
    order = 25

    def draw(self, run: Run) -> tuple[Figure, pd.DataFrame]:
        """Draw a panel per quality metric and dataset in which the budget varies.

        The data has a row per seed, and one for the mean over several seeds.
        """
        rows = _with_budgets(run)
        budgets = rows.groupby(PANEL, dropna=False)[BUDGET].transform("nunique")
        rows = rows[budgets > 1]
        if rows.empty:
            raise NotDrawnError(
                "in no panel are there models with different numbers of training images: give "
                "several runs, of protocols with different budgets"
            )
        return _figure(rows, Curves(rows, run)), rows


def _with_budgets(run: Run) -> pd.DataFrame:
    """Return qualities and their means over seeds, with the number of images trained on."""
    rows = headline_rows(run, "quality_against_training_images")
    known = rows.assign(**{BUDGET: rows["train_images"] * rows["epoch"]}).dropna(subset=BUDGET)
    if known.empty:
        raise NotDrawnError("no model says how many images it was trained on")
    budgets = known.groupby(NAMES, dropna=False)[BUDGET].max().reset_index()
    return add_seed_means(known.drop(columns=BUDGET), run).merge(budgets, on=NAMES)[SHOWN]


def _figure(rows: pd.DataFrame, curves: Curves) -> Figure:
    parts = [part for _, part in groups(rows, PANEL)]
    titles = [_title(part.iloc[0], rows) for part in parts]
    heights = [
        PANEL_INCHES + text_height(titles[i : i + COLUMNS]) - LINE_INCHES
        for i in range(0, len(parts), COLUMNS)
    ]
    figure, axes = panel_grid(COLUMNS, heights, curves.legend_height())
    for ax, part, title in zip(axes.flat, parts, titles, strict=False):
        _draw_panel(ax, part, curves)
        ax.set_title(title, loc="left")
    hide_panels(axes.flat[len(parts) :])
    curves.add_legend(figure)
    return figure


def _title(row: pd.Series, rows: pd.DataFrame) -> str:
    """Return a panel's title, with the extractor if another panel of the metric has another."""
    title = f"{row['dataset']}, n={row['n']}"
    same = rows[(rows["metric"] == row["metric"]) & (rows["dataset"] == row["dataset"])]
    if same["extractor"].nunique(dropna=False) > 1:
        title += f", {row['extractor']}"
    return wrap_text(title, TITLE_INCHES)


def _draw_panel(ax: Axes, rows: pd.DataFrame, curves: Curves) -> None:
    points = best_estimates(rows, ["label", "backend", "protocol_hash", BUDGET])
    curves.draw(ax, points.assign(**{BUDGET: points[BUDGET].astype(float)}), BUDGET)
    log_if_wide(ax, rows["value"], "y")
    ax.set_xscale("log")
    budgets = sorted(set(points[BUDGET]))
    if len(budgets) <= MOST_TICKS:
        ax.set_xticks(budgets, [compact(budget) for budget in budgets])
        ax.xaxis.minorticks_off()
    ax.set_xlabel("images trained on")
    label_axis(ax.yaxis, rows.iloc[0], rows["value"], 2.2)
