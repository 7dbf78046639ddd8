"""Curves by model and backend: colour and marker identify the model, dashes the backend."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.plots.plot_data import series_names
from bench.report.plots.style import (
    GREY,
    SeriesStyle,
    add_legend,
    legend_handle,
    legend_height,
    series_styles,
)
from bench.report.run_reader import Run

MOST_CURVES = 12
"""Largest number of curves in a panel; above it, each backend has its own panels."""
MOST_BANDS = 6
"""Largest number of curves with bands in a panel."""
ALL_BACKENDS = "all backends"


class Curves:
    """Styles of the curves of a figure; a name has the same style in every figure of a run.

    Attributes:
        models: style by model label, of the models in the data.
        backends: style by backend, of the backends in the data.
    """

    def __init__(self, data: pd.DataFrame, run: Run) -> None:
        """Choose the styles.

        Args:
            data: the rows to draw, with the columns ``label`` and ``backend``.
            run: the run that they are of.
        """
        labels, backends = series_names(run)
        in_data = set(data["label"]), set(data["backend"])
        self.models = {k: v for k, v in series_styles(labels).items() if k in in_data[0]}
        self.backends = {k: v for k, v in series_styles(backends).items() if k in in_data[1]}

    def draw(self, ax: Axes, rows: pd.DataFrame, x: str, *, marker_step: int = 1) -> None:
        """Draw a curve per model and backend, with a band from ``ci_low`` to ``ci_high``.

        A curve of a single point has a line instead. Many bands would hide each other, so a panel
        of more than ``MOST_BANDS`` curves has none.

        Args:
            ax: the panel.
            rows: the points, with ``label``, ``backend``, ``value``, ``ci_low`` and ``ci_high``.
            x: column of the horizontal axis.
            marker_step: draw a marker at every so many points.
        """
        curves: Any = rows.sort_values(x).groupby(["label", "backend"], sort=True)
        for key, part in curves:
            style = self._style(*key)
            at, ends = part[x].astype(float), part[["ci_low", "ci_high"]].astype(float)
            ax.plot(
                at, part["value"], color=style.colour, marker=style.marker,
                linestyle=style.linestyle, markevery=marker_step, markeredgecolor="white",
                markeredgewidth=0.4,
            )  # fmt: skip
            if len(part) == 1:
                ax.plot([at, at], ends.T, color=style.colour, linewidth=0.9)
            elif curves.ngroups <= MOST_BANDS:
                ax.fill_between(
                    at, ends["ci_low"], ends["ci_high"], color=style.colour, alpha=0.1, linewidth=0
                )

    def draw_level(self, ax: Axes, row: Mapping[str, Any], linestyle: Any) -> None:
        """Draw a thin horizontal line at a row's value, in its model's colour.

        Args:
            ax: the panel.
            row: the row, with ``label`` and ``value``.
            linestyle: a matplotlib line style.
        """
        colour = self.models[row["label"]].colour
        ax.axhline(row["value"], color=colour, linestyle=linestyle, linewidth=0.8, zorder=1)

    def legend_height(self, more: Iterable[str] = ()) -> float:
        """Return the height in inches of the legend, with ``more`` names after the backends."""
        return legend_height([*self.models, *self.backends, *more])

    def add_legend(self, figure: Figure, more: Iterable[tuple[Line2D, str]] = ()) -> None:
        """Put a legend above the axes: the models, the backends, then ``more`` lines."""
        models = [
            (legend_handle(style, linestyle="-"), name) for name, style in self.models.items()
        ]
        backends = [
            (Line2D([], [], color=GREY, linestyle=style.linestyle), name)
            for name, style in self.backends.items()
        ]
        add_legend(figure, [*models, *backends, *more])

    def _style(self, label: str, backend: str) -> SeriesStyle:
        model = self.models[label]
        return SeriesStyle(model.colour, model.marker, self.backends[backend].dashes, model.fill)


def backend_panels(data: pd.DataFrame) -> pd.Series:
    """Return the backend whose panels each row is in, or ``all backends`` if they share panels."""
    counts = data.groupby("context")[["label", "backend"]].value_counts().groupby("context").size()
    crowded = data["context"].map(counts) > MOST_CURVES
    return data["backend"].where(crowded, ALL_BACKENDS)


def panel_context(rows: pd.DataFrame) -> str:
    """Return the context of a panel's rows, and their backend if it has its own panels."""
    first = rows.iloc[0]
    backend = [] if first["backend_panel"] == ALL_BACKENDS else [first["backend_panel"]]
    return ", ".join([first["context"], *backend])
