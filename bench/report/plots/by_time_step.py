"""Quality, and firing rate, against the time step."""

from typing import ClassVar

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.report.plots.curves import Curves, backend_panels, panel_context
from bench.report.plots.plot import Plot
from bench.report.plots.plot_data import add_seed_means, best_estimates, groups, measured_rows
from bench.report.plots.style import (
    LINE_INCHES,
    hide_panels,
    label_axis,
    panel_grid,
    text_height,
    wrap_text,
)
from bench.report.run_reader import Run

SHOWN = [
    "metric", "metric_label", "split", "context", "unit", "higher_is_better", "label", "model",
    "model_version", "backend", "dataset", "protocol", "protocol_hash", "n", "extractor",
    "extractor_sha256", "time_step", "estimate", "seed", "seeds", "value", "ci_low", "ci_high",
]  # fmt: skip
COLUMNS = 2
PANEL_INCHES = 2.2
TITLE_INCHES = 2.9


class _AgainstTimeStep(Plot):
    """One panel per metric, split and context, time steps across.

    Attributes:
        metrics: metrics that have values by time step.
        x_label: label of the horizontal axis.
    """

    metrics: ClassVar[list[str]]
    x_label: ClassVar[str]

    def draw(self, run: Run) -> tuple[Figure, pd.DataFrame]:
        """Draw two panels per row; the data has a row per seed and time step, and the means."""
        rows = measured_rows(run, self.metrics, _whole_model_by_time_step)
        rows = add_seed_means(rows, run).reindex(columns=SHOWN)
        return self._figure(rows, Curves(rows, run)), rows

    def _figure(self, rows: pd.DataFrame, curves: Curves) -> Figure:
        by = ["metric", "split", "context", "label", "backend", "time_step"]
        points = best_estimates(rows.assign(backend_panel=backend_panels(rows)), by)
        points = points.assign(time_step=points["time_step"].astype(int))
        parts = [
            part for _, part in groups(points, ["metric", "split", "context", "backend_panel"])
        ]
        titles = [_title(part) for part in parts]
        heights = [
            PANEL_INCHES + text_height(titles[i : i + COLUMNS]) - LINE_INCHES
            for i in range(0, len(parts), COLUMNS)
        ]
        figure, axes = panel_grid(COLUMNS, heights, curves.legend_height())
        for ax, part, title in zip(axes.flat, parts, titles, strict=False):
            curves.draw(ax, part, "time_step")
            ax.set_title(title, loc="left")
            ax.set(xlabel=self.x_label)
            label_axis(ax.yaxis, part.iloc[0], part["value"], 1.8)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        hide_panels(axes.flat[len(parts) :])
        curves.add_legend(figure)
        return figure


class QualityByTimeStep(_AgainstTimeStep):
    """Quality of images that are decoded from the first time steps only."""

    title = "Quality against time steps"
    caption = (
        "Quality of reconstructions (test) and samples (generated) decoded from the first t time "
        "steps only. Bands: 95 % interval over seeds, or over images of a single seed."
    )
    order = 30
    metrics: ClassVar[list[str]] = [
        "reconstruction_loss_by_time_step",
        "frechet_distance_by_time_step",
    ]
    x_label = "time steps decoded"


class FiringRateByTimeStep(_AgainstTimeStep):
    """Firing rate of the whole model at each time step."""

    title = "Firing rate by time step"
    caption = (
        "Spikes per neuron of the whole model at each time step, while test images are "
        "reconstructed (test) and while images are sampled (generated). Bands: 95 % interval over "
        "seeds, if there are several."
    )
    order = 60
    metrics: ClassVar[list[str]] = ["firing_rate"]
    x_label = "time step"


def _whole_model_by_time_step(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["time_step"].notna() & rows["layer"].isna()]


def _title(part: pd.DataFrame) -> str:
    return wrap_text(f"{part['split'].iloc[0]}: {panel_context(part)}", TITLE_INCHES)
