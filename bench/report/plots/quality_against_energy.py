"""Quality against energy, with the Pareto front."""

from math import inf
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.plots.curves import Curves
from bench.report.plots.plot import Plot, unmeasured
from bench.report.plots.plot_data import SEED, drawn, measured, panels, records, with_means
from bench.report.plots.style import (
    FILLS,
    GREY,
    axis_label,
    blank,
    entry,
    grid,
    legend,
    legend_height,
    log_if_wide,
    wrapped,
)
from bench.report.run_reader import Run
from bench.store.aggregation import whole_models

QUALITY = {"reconstruction_loss": "test", "fad": "generated", "fid": "generated"}
ENERGY = "energy"
COLUMNS = 2
SERIES = [
    "label", "model", "model_version", "backend", "dataset", "dataset_fingerprint",
    "protocol_hash", "train_images", "split",
]  # fmt: skip
OF_ENERGY = ["unit", "n", "epoch_selection", "value", "ci_low", "ci_high"]


class QualityAgainstEnergy(Plot):
    """A panel a quality metric and context: energy across, quality down."""

    name = "quality_against_energy"
    title = "Quality against energy"
    caption = (
        "Reconstruction loss against the energy of reconstructing an image, and Fréchet distances "
        "against that of sampling one: lower left is better. Small points are seeds, large ones "
        "their mean; error bars: 95 % interval over seeds, or over images of a single seed. The "
        "dashed line joins the Pareto front, its points ringed: nothing is at once better and "
        "cheaper."
    )

    def data(self, run: Run) -> pd.DataFrame:
        """Quality and energy side by side, a row a seed and one for the mean; ``pareto`` marks."""
        quality = whole_models(measured(run, list(QUALITY)))
        quality = with_means(quality[quality["split"] == quality["metric"].map(QUALITY)])
        energy = with_means(whole_models(measured(run, [ENERGY])))
        on = [*SERIES, "estimate", "seed", "seeds"]
        renamed = {name: f"{ENERGY}_{name}" for name in OF_ENERGY}
        joined = quality.merge(energy[[*on, *OF_ENERGY]].rename(columns=renamed), on=on)
        return joined.assign(pareto=_pareto(joined)).reindex(
            columns=[
                "metric", "context", "unit", "higher_is_better", *SERIES, "protocol", "n",
                "extractor", "extractor_sha256", "epoch_selection", "estimate", "seed", "seeds",
                "value", "ci_low", "ci_high", *renamed.values(), "pareto",
            ]
        )  # fmt: skip

    def reason(self, run: Run) -> str:
        """No cell has both a quality and an energy."""
        for metrics in (list(QUALITY), [ENERGY]):
            if measured(run, metrics).empty:
                return unmeasured(run, metrics)
        return f"no cell has both energy and one of {', '.join(QUALITY)} for the same images"

    def figure(self, data: pd.DataFrame, run: Run) -> Figure:
        """Two panels a row."""
        curves = Curves(data, run)
        fills = dict(zip(curves.backends, FILLS * len(curves.backends), strict=False))
        parts = [part for _, part in panels(data, ["metric", "context", *_UNLIKE])]
        rows = -(-len(parts) // COLUMNS)
        names = [*curves.models, *curves.backends, "Pareto front"]
        figure, axes = grid(rows, COLUMNS, [2.5] * rows, legend_height(names))
        for ax, part in zip(axes.flat, parts, strict=False):
            _panel(ax, part, curves, fills)
        blank(axes.flat[len(parts) :])
        legend(figure, [*_entries(curves, fills), (_front_line(), "Pareto front")])
        return figure


_UNLIKE = ["energy_n", "energy_epoch_selection", "energy_unit"]


def _pareto(data: pd.DataFrame) -> pd.Series:
    """Which of a panel's drawn points no other beats or equals in both and beats in one."""
    front = []
    for _, part in panels(data, ["metric", "context", *_UNLIKE]):
        points = drawn(part, ["label", "backend"]).sort_values(["energy_value", "value"])
        cheaper = points["value"].cummin().shift(fill_value=inf)
        front += list(points.index[points["value"] < cheaper])
    return pd.Series(data.index.isin(front), index=data.index)


def _panel(ax: Axes, rows: pd.DataFrame, curves: Curves, fills: dict[str, Any]) -> None:
    for row in records(rows[rows["estimate"] == SEED]):
        look = curves.models[row["label"]]
        ax.plot(
            row["energy_value"], row["value"], marker=look.marker, color=look.colour, alpha=0.4,
            markersize=2.2, markeredgewidth=0,
        )  # fmt: skip
    for row in records(drawn(rows, ["label", "backend"])):
        look = curves.models[row["label"]]
        x, y = row["energy_value"], row["value"]
        ends = [row["energy_ci_low"], row["energy_ci_high"]]
        ax.plot(ends, [y, y], color=look.colour, linewidth=0.9, zorder=2)
        ax.plot([x, x], [row["ci_low"], row["ci_high"]], color=look.colour, linewidth=0.9, zorder=2)
        ax.plot(
            x, y, marker=look.marker, color=look.colour, markersize=6,
            fillstyle=fills[row["backend"]], markerfacecoloralt="white", zorder=3,
        )  # fmt: skip
    front = rows[rows["pareto"]].sort_values("energy_value")
    ax.plot(
        front["energy_value"], front["value"], color=GREY, linestyle=(0, (4, 2)), linewidth=0.9,
        marker="o", markersize=10, fillstyle="none", markeredgewidth=0.8, zorder=1.5,
    )  # fmt: skip
    log_if_wide(ax, rows["energy_value"], "x")
    log_if_wide(ax, rows["value"], "y")
    first = rows.iloc[0]
    ax.set_ylabel(axis_label(first, 2.2))
    energy = first.copy()
    energy["metric"], energy["unit"], energy["higher_is_better"] = ENERGY, first.energy_unit, False
    ax.set_xlabel(axis_label(energy, 2.9))
    ax.set_title(wrapped(f"{first['split']}: {first['context']}{_unlike(first)}", 2.9), loc="left")


def _unlike(row: pd.Series) -> str:
    """Where the energy was measured otherwise than the quality."""
    said = []
    if row["energy_n"] != row["n"]:
        said.append(f"energy over n = {row['energy_n']}")
    if row["energy_epoch_selection"] != row["epoch_selection"]:
        said.append(
            f"epoch by {row['epoch_selection']}, energy's by {row['energy_epoch_selection']}"
        )
    return "".join(f"; {part}" for part in said)


def _entries(curves: Curves, fills: dict[str, Any]) -> list[tuple[Line2D, str]]:
    models = [(entry(look), name) for name, look in curves.models.items()]
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
    return [*models, *backends]


def _front_line() -> Line2D:
    return Line2D(
        [], [], color=GREY, linestyle=(0, (4, 2)), marker="o", markersize=8, fillstyle="none"
    )
