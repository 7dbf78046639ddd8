"""Firing rate by layer."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.plots.dots import dots
from bench.report.plots.plot import Plot, unmeasured
from bench.report.plots.plot_data import measured, names_of, panels, with_means
from bench.report.plots.style import (
    Look,
    axis_label,
    blank,
    entry,
    grid,
    legend,
    legend_height,
    looks,
    plain,
    wrapped,
)
from bench.report.run_reader import Run

METRIC = "firing_rate"
SPLITS = ("test", "generated")
LAYER_INCHES = 0.145


class FiringRateByLayer(Plot):
    """A row of panels a model and dataset, a panel a split, layers down in the order they run."""

    name = "firing_rate_by_layer"
    title = "Firing rate by layer"
    caption = (
        "Spikes per neuron and time step of each spiking layer, while test images are "
        "reconstructed (test) and while images are sampled (generated). Small points are seeds; "
        "the large one is their mean with the 95 % interval over seeds, where there are several."
    )

    def data(self, run: Run) -> pd.DataFrame:
        """One row a seed and layer, and one for the mean where there are several seeds."""
        rows = measured(run, [METRIC])
        rows = rows[rows["layer"].notna() & rows["time_step"].isna()]
        keep = [
            "metric", "split", "context", "unit", "higher_is_better", "label", "model",
            "model_version", "backend", "dataset", "protocol", "protocol_hash", "n", "layer",
            "estimate", "seed", "seeds", "value", "ci_low", "ci_high",
        ]  # fmt: skip
        return with_means(rows).reindex(columns=keep)

    def reason(self, run: Run) -> str:
        """No firing rate was measured."""
        return unmeasured(run, [METRIC])

    def figure(self, data: pd.DataFrame, run: Run) -> Figure:
        """Panels of a row share their layers."""
        shared = data.assign(where=_without_n(data))
        styles = looks(names_of(run)[1])
        backends = [name for name in styles if name in set(data["backend"])]
        rows = [part for _, part in panels(shared, ["label", "where"])]
        layers = [list(dict.fromkeys(part["layer"])) for part in rows]
        heights = [0.75 + LAYER_INCHES * len(names) for names in layers]
        splits = [split for split in SPLITS if split in set(data["split"])]
        figure, axes = grid(len(rows), len(splits), heights, legend_height(backends), sharey="row")
        for line, part, names in zip(axes, rows, layers, strict=True):
            for ax, split in zip(line, splits, strict=True):
                one = part[part["split"] == split]
                if one.empty:
                    blank([ax])
                else:
                    _panel(ax, one, names, styles)
                    ax.set_title(wrapped(f"{split}: {one['context'].iloc[0]}", 2.5), loc="left")
            line[0].set_ylabel(wrapped(part["label"].iloc[0], heights[0] - 0.5))
        legend(figure, [(entry(styles[name]), name) for name in backends])
        return figure


def _without_n(data: pd.DataFrame) -> pd.Series:
    """The context without its number of images, which differs between the splits."""
    return data["context"].str.replace(r", n=\w+", "", regex=True)


def _panel(ax: Axes, rows: pd.DataFrame, layers: list[str], styles: dict[str, Look]) -> None:
    backends = sorted(rows["backend"].unique())
    middle = (len(backends) - 1) / 2
    shift = rows["backend"].map({name: 0.22 * (i - middle) for i, name in enumerate(backends)})
    rows = rows.assign(at=rows["layer"].map({name: i for i, name in enumerate(layers)}) + shift)
    dots(ax, rows, ["backend", "layer"], styles, size=3.6)
    ax.set(ylim=(len(layers) - 0.5, -0.5))
    ax.set_yticks(np.arange(len(layers)), [plain(name) for name in layers])
    ax.tick_params(axis="y", length=0)
    ax.locator_params(axis="x", nbins=4)
    ax.set_xlabel(axis_label(rows.iloc[0], 2.4))
