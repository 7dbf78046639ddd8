"""Headline metrics by model, with intervals."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.plots.dots import draw_dots
from bench.report.plots.plot import Plot
from bench.report.plots.plot_data import add_seed_means, groups, headline_rows, series_names
from bench.report.plots.style import (
    LINE_INCHES,
    SeriesStyle,
    add_legend,
    hide_panels,
    label_axis,
    legend_handle,
    legend_height,
    log_if_wide,
    panel_grid,
    series_styles,
    text_height,
    wrap_text,
)
from bench.report.run_reader import Run

SHOWN = [
    "metric", "metric_label", "split", "context", "unit", "higher_is_better", "label", "model",
    "model_version", "backend", "dataset", "dataset_variant", "protocol", "protocol_hash", "n",
    "extractor", "extractor_sha256", "epoch_selection", "estimate", "seed", "seeds", "value",
    "ci_low", "ci_high",
]  # fmt: skip
COLUMNS = 3
NAME_INCHES = 1.45
PANEL_INCHES = 1.8
BACKEND_INCHES = 0.13


class MetricByModel(Plot):
    """Headline metrics by model and backend, comparable rows only in a panel."""

    title = "Metric by model"
    caption = (
        "Each headline metric by model and backend, comparable rows only in a panel. Small points "
        "are seeds; the large one is their mean with the 95 % interval over seeds (Student's t), "
        "or the value of a single seed with the 95 % interval over images."
    )
    order = 10

    def draw(self, run: Run) -> tuple[Figure, pd.DataFrame]:
        """Draw a panel per metric and context: models down, values across, colour by backend.

        The data has a row per seed, and one for the mean if there are several seeds.
        """
        rows = add_seed_means(headline_rows(run, "metric_by_model"), run).reindex(columns=SHOWN)
        backends = set(rows["backend"])
        styles = series_styles(series_names(run)[1])
        styles = {name: style for name, style in styles.items() if name in backends}
        return _figure(rows, styles, _metrics_of_several_splits(run)), rows


class _ModelPlaces:
    """Heights of the models and backends of a dataset, in inches from the top of a panel.

    Attributes:
        at: height of each model label and backend.
        names: name of each model, with line breaks.
        centres: height of each model's centre.
        edges: height of each model's lower edge.
        height: height of all models.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        """Place the models of the rows, sorted by label, and their backends."""
        self.at: dict[tuple[str, str], float] = {}
        self.names: list[str] = []
        self.centres: list[float] = []
        self.edges: list[float] = []
        self.height = 0.0
        for label in sorted(rows["label"].unique()):
            self._add(label, sorted(rows.loc[rows["label"] == label, "backend"].unique()))

    def _add(self, label: str, backends: list[str]) -> None:
        name = wrap_text(label, NAME_INCHES)
        needed = max(BACKEND_INCHES * len(backends), text_height([name])) + 0.08
        centre = self.height + needed / 2
        for i, backend in enumerate(backends):
            self.at[label, backend] = centre + (i - (len(backends) - 1) / 2) * BACKEND_INCHES
        self.height += needed
        self.names.append(name)
        self.centres.append(centre)
        self.edges.append(self.height)


def _metrics_of_several_splits(run: Run) -> set[str]:
    splits = run.rows.groupby("metric")["split"].nunique()
    return set(splits.index[splits > 1])


def _figure(
    rows: pd.DataFrame, styles: dict[str, SeriesStyle], of_several_splits: set[str]
) -> Figure:
    """Draw three panels per row; each dataset and protocol has rows of its own.

    The panels of a dataset share their models.

    Args:
        rows: the rows to draw.
        styles: style by backend.
        of_several_splits: metrics whose panels name the split.
    """
    lines, places = [], []
    for _, group in groups(rows, ["dataset"]):
        place = _ModelPlaces(group)
        for _, of_protocol in groups(group, ["protocol"]):
            parts = [part for _, part in groups(of_protocol, ["metric", "context"])]
            lines += [parts[i : i + COLUMNS] for i in range(0, len(parts), COLUMNS)]
            places += [place] * -(-len(parts) // COLUMNS)
    titles = [[_title(part.iloc[0], of_several_splits) for part in parts] for parts in lines]
    heights = [
        0.85 - LINE_INCHES + max(0.35, place.height) + text_height(row_titles)
        for place, row_titles in zip(places, titles, strict=True)
    ]
    figure, axes = panel_grid(COLUMNS, heights, legend_height([*styles]))
    for row, parts, place, row_titles in zip(axes, lines, places, titles, strict=True):
        for ax, part, title in zip(row, parts, row_titles, strict=False):
            _draw_panel(ax, part, place, styles)
            ax.set_title(title, loc="left")
        row[0].set_yticks(place.centres, place.names)
        row[0].tick_params(axis="y", length=0)
        hide_panels(row[len(parts) :])
    add_legend(figure, [(legend_handle(style), name) for name, style in styles.items()])
    return figure


def _title(row: pd.Series, of_several_splits: set[str]) -> str:
    split = f", {row['split']}" if row["metric"] in of_several_splits else ""
    return wrap_text(f"{row['context']}{split}", PANEL_INCHES)


def _draw_panel(
    ax: Axes, rows: pd.DataFrame, places: _ModelPlaces, styles: dict[str, SeriesStyle]
) -> None:
    at = [places.at[key] for key in zip(rows["label"], rows["backend"], strict=True)]
    draw_dots(ax, rows.assign(at=at), ["label", "backend"], styles, size=4.8)
    for edge in places.edges[:-1]:
        ax.axhline(edge, color="#cfcfcf", linewidth=0.5)
    ax.set(ylim=(places.height, 0), yticks=[])
    ax.grid(False, axis="y")
    log_if_wide(ax, rows["value"], "x")
    label_axis(ax.xaxis, rows.iloc[0], rows["value"], PANEL_INCHES)
