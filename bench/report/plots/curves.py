"""Curves of models and backends: colour and marker say the model, dashes the backend."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.plots.plot_data import names_of
from bench.report.plots.style import GREY, Look, entry, legend, legend_height, looks
from bench.report.run_reader import Run

CROWDED = 12
"""So many curves at most in a panel; beyond, each backend has panels of its own."""
ALL_BACKENDS = "all backends"


class Curves:
    """The looks of a figure's curves, the same in every figure of a run."""

    def __init__(self, data: pd.DataFrame, run: Run) -> None:
        """Note which models and backends the data has."""
        labels, backends = names_of(run)
        there = set(data["label"]), set(data["backend"])
        self.models = {k: v for k, v in looks(labels).items() if k in there[0]}
        self.backends = {k: v for k, v in looks(backends).items() if k in there[1]}

    def draw(self, ax: Axes, rows: pd.DataFrame, x: str, y: str = "value", every: int = 1) -> None:
        """One curve a model and backend, with a band from ``ci_low`` to ``ci_high``."""
        groups: Any = rows.groupby(["label", "backend"], sort=True)
        series = {f"{i}": (key, part.sort_values(x)) for i, (key, part) in enumerate(groups)}
        if not series:
            return
        look = {name: self._look(*key) for name, (key, _) in series.items()}
        sns.lineplot(
            pd.concat([part.assign(series=name) for name, (_, part) in series.items()]),
            x=x, y=y, hue="series", style="series", ax=ax, legend=False, errorbar=None,
            palette={name: seen.colour for name, seen in look.items()},
            markers={name: seen.marker for name, seen in look.items()},
            dashes={name: _dashes(seen) for name, seen in look.items()},
            markevery=every, markeredgecolor="white", markeredgewidth=0.4,
        )  # fmt: skip
        for name, (_, part) in series.items():
            known = part.dropna(subset=["ci_low", "ci_high"])
            ax.fill_between(
                known[x].astype(float), known["ci_low"], known["ci_high"],
                color=look[name].colour, alpha=0.1, linewidth=0,
            )  # fmt: skip

    def level(self, ax: Axes, row: Mapping[str, Any], linestyle: Any) -> None:
        """A thin horizontal line at a row's value, in its model's colour."""
        colour = self.models[row["label"]].colour
        ax.axhline(row["value"], color=colour, linestyle=linestyle, linewidth=0.8, zorder=1)

    def entries(self, more: Iterable[tuple[Line2D, str]] = ()) -> list[tuple[Line2D, str]]:
        """What the legend says: the models, then the backends, then ``more``."""
        models = [(entry(look, linestyle="-"), name) for name, look in self.models.items()]
        backends = [
            (Line2D([], [], color=GREY, linestyle=look.linestyle), name)
            for name, look in self.backends.items()
        ]
        return [*models, *backends, *more]

    def legend_height(self, more: Iterable[str] = ()) -> float:
        """Room in inches for the legend."""
        return legend_height([*self.models, *self.backends, *more])

    def legend(self, figure: Figure, more: Iterable[tuple[Line2D, str]] = ()) -> None:
        """Put the legend below the axes."""
        legend(figure, self.entries(more))

    def _look(self, label: str, backend: str) -> Look:
        model = self.models[label]
        return Look(model.colour, model.marker, self.backends[backend].dashes, model.fill)


def by_crowd(data: pd.DataFrame) -> pd.Series:
    """Which rows of panels a row belongs to: all backends, or its own where panels are crowded."""
    several = data.groupby("context")[["label", "backend"]].value_counts().groupby("context").size()
    crowded = data["context"].map(several) > CROWDED
    return data["backend"].where(crowded, ALL_BACKENDS)


def where(rows: pd.DataFrame) -> str:
    """What a row of panels is of: its context, and its backend where each has its own."""
    first = rows.iloc[0]
    return ", ".join(
        [first["context"], *([] if first["crowd"] == ALL_BACKENDS else [first["crowd"]])]
    )


def _dashes(look: Look) -> tuple[float, ...] | str:
    return "" if look.linestyle == "-" else look.dashes
