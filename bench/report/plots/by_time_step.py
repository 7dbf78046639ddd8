"""Quality, and firing rate, against the time step."""

from typing import ClassVar

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.report.plots.curves import Curves, by_crowd, where
from bench.report.plots.plot import Plot, unmeasured
from bench.report.plots.plot_data import drawn, measured, panels, with_means
from bench.report.plots.style import axis_label, blank, grid, wrapped
from bench.report.run_reader import Run

KEEP = [
    "metric", "split", "context", "unit", "higher_is_better", "label", "model", "model_version",
    "backend", "dataset", "protocol", "protocol_hash", "n", "extractor", "extractor_sha256",
    "time_step", "estimate", "seed", "seeds", "value", "ci_low", "ci_high",
]  # fmt: skip
COLUMNS = 2


class _AgainstTimeStep(Plot):
    """A panel a metric, split and context, time steps across."""

    metrics: ClassVar[list[str]]
    x_label: ClassVar[str]

    def data(self, run: Run) -> pd.DataFrame:
        """One row a seed and time step, and one for the mean where there are several seeds."""
        rows = measured(run, self.metrics)
        rows = rows[rows["time_step"].notna() & rows["layer"].isna()]
        return with_means(rows).reindex(columns=KEEP)

    def reason(self, run: Run) -> str:
        """Nothing was measured by time step."""
        return unmeasured(run, self.metrics)

    def figure(self, data: pd.DataFrame, run: Run) -> Figure:
        """Two panels a row."""
        curves = Curves(data, run)
        by = ["metric", "split", "context", "label", "backend", "time_step"]
        shown = drawn(data.assign(crowd=by_crowd(data)), by)
        parts = [part for _, part in panels(shown, ["metric", "split", "context", "crowd"])]
        rows = -(-len(parts) // COLUMNS)
        figure, axes = grid(rows, COLUMNS, [2.2] * rows, curves.legend_height())
        for ax, part in zip(axes.flat, parts, strict=False):
            curves.draw(ax, part.assign(time_step=part["time_step"].astype(int)), "time_step")
            ax.set_title(wrapped(f"{part['split'].iloc[0]}: {where(part)}", 2.9), loc="left")
            ax.set(xlabel=self.x_label)
            ax.set_ylabel(axis_label(part.iloc[0], 1.8))
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        blank(axes.flat[len(parts) :])
        curves.legend(figure)
        return figure


class QualityByTimeStep(_AgainstTimeStep):
    """Quality of images that are decoded from the first time steps only."""

    name = "quality_by_time_step"
    title = "Quality against time steps"
    caption = (
        "Quality of reconstructions (test) and samples (generated) decoded from the first t time "
        "steps only. Bands: 95 % interval over seeds, or over images of a single seed."
    )
    metrics: ClassVar[list[str]] = [
        "reconstruction_loss_by_time_step",
        "frechet_distance_by_time_step",
    ]
    x_label = "time steps decoded"


class FiringRateByTimeStep(_AgainstTimeStep):
    """Firing rate of the whole model at each time step."""

    name = "firing_rate_by_time_step"
    title = "Firing rate by time step"
    caption = (
        "Spikes per neuron of the whole model at each time step, while test images are "
        "reconstructed (test) and while images are sampled (generated). Bands: 95 % interval over "
        "seeds, where there are several."
    )
    metrics: ClassVar[list[str]] = ["firing_rate"]
    x_label = "time step"
