"""Metric by model, with intervals."""

from typing import ClassVar

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
    log_if_wide,
    looks,
    wrapped,
)
from bench.report.run_reader import Run
from bench.store.aggregation import whole_models

HEADLINE = {
    "reconstruction_loss": "test",
    "ssim": "test",
    "fid": "generated",
    "inception_score": "generated",
    "efficientnet_frechet_distance": "generated",
    "fad": "generated",
    "firing_rate": "test",
    "energy": "generated",
}
COLUMNS = 3
NAME_INCHES = 1.45
PANEL_INCHES = 1.8
BACKEND_INCHES = 0.13
LINE_INCHES = 0.135


class MetricByModel(Plot):
    """One panel a headline metric and context: models down, values across, colour by backend."""

    name = "metric_by_model"
    title = "Metric by model"
    caption = (
        "Each headline metric by model and backend, comparable rows only in a panel. Small points "
        "are seeds; the large one is their mean with the 95 % interval over seeds (Student's t), "
        "or, of a single seed, its value with the 95 % interval over images."
    )
    keep: ClassVar[list[str]] = [
        "metric", "split", "context", "unit", "higher_is_better", "label", "model",
        "model_version", "backend", "dataset", "dataset_variant", "protocol", "protocol_hash", "n",
        "extractor", "extractor_sha256", "epoch_selection", "estimate", "seed", "seeds", "value",
        "ci_low", "ci_high",
    ]  # fmt: skip

    def data(self, run: Run) -> pd.DataFrame:
        """One row a seed, and one for the mean where there are several seeds."""
        rows = whole_models(measured(run, list(HEADLINE)))
        rows = rows[rows["split"] == rows["metric"].map(HEADLINE)]
        return with_means(rows).reindex(columns=self.keep)

    def reason(self, run: Run) -> str:
        """No headline metric has a number."""
        return unmeasured(run, list(HEADLINE))

    def figure(self, data: pd.DataFrame, run: Run) -> Figure:
        """Blocks of panels, one a dataset; the panels of a row share their models."""
        backends = [name for name in names_of(run)[1] if name in set(data["backend"])]
        styles = {name: look for name, look in looks(names_of(run)[1]).items() if name in backends}
        lines = [
            (group, metrics[start : start + COLUMNS])
            for _, group in panels(data, ["dataset"])
            for metrics in [[part for _, part in panels(group, ["metric", "context"])]]
            for start in range(0, len(metrics), COLUMNS)
        ]
        places = [_Place(group) for group, _ in lines]
        heights = [0.85 + max(0.35, place.height) for place in places]
        figure, axes = grid(len(lines), COLUMNS, heights, legend_height(backends))
        for line, place, (_, metrics) in zip(axes, places, lines, strict=True):
            for ax, metric in zip(line, metrics, strict=False):
                _panel(ax, metric, place, styles)
            line[0].set_yticks(place.centres, place.names)
            line[0].tick_params(axis="y", length=0)
            blank(line[len(metrics) :])
        legend(figure, [(entry(look), name) for name, look in styles.items()])
        return figure


class _Place:
    """Where the models and backends of a dataset lie, in inches from the top."""

    def __init__(self, group: pd.DataFrame) -> None:
        self.at: dict[tuple[str, str], float] = {}
        self.names: list[str] = []
        self.centres: list[float] = []
        self.edges: list[float] = []
        self.height = 0.0
        for label in sorted(group["label"].unique()):
            self._add(label, sorted(group.loc[group["label"] == label, "backend"].unique()))

    def _add(self, label: str, backends: list[str]) -> None:
        name = wrapped(label, NAME_INCHES)
        lines = name.count("\n") + 1
        needed = max(BACKEND_INCHES * len(backends), LINE_INCHES * lines) + 0.08
        centre = self.height + needed / 2
        for i, backend in enumerate(backends):
            self.at[label, backend] = centre + (i - (len(backends) - 1) / 2) * BACKEND_INCHES
        self.height += needed
        self.names.append(name)
        self.centres.append(centre)
        self.edges.append(self.height)


def _panel(ax: Axes, rows: pd.DataFrame, place: _Place, styles: dict[str, Look]) -> None:
    at = [place.at[key] for key in zip(rows["label"], rows["backend"], strict=True)]
    dots(ax, rows.assign(at=at), ["label", "backend"], styles, size=4.8)
    for edge in place.edges[:-1]:
        ax.axhline(edge, color="#cfcfcf", linewidth=0.5)
    ax.set(ylim=(place.height, 0), yticks=[])
    ax.grid(False, axis="y")
    log_if_wide(ax, rows["value"], "x")
    first = rows.iloc[0]
    ax.set_xlabel(axis_label(first, PANEL_INCHES))
    split = f", {first['split']}" if first["metric"] in ("firing_rate", "energy") else ""
    ax.set_title(wrapped(f"{first['context']}{split}", PANEL_INCHES), loc="left")
