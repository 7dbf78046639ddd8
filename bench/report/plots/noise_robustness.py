"""Reconstruction error against noise on input and latent."""

import itertools
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.plots.curves import Curves, by_crowd, where
from bench.report.plots.plot import Plot, unmeasured
from bench.report.plots.plot_data import drawn, measured, panels, records, with_means
from bench.report.plots.style import GREY, WIDTH, axis_label, grid, plain, wrapped
from bench.report.run_reader import Run

METRICS = ["noise_robustness", "noise_robustness_to_noise_free"]
NONE = "none"
REFERENCE_LINES = ((0, (6, 3)), (0, (1, 2)), (0, (3, 1, 1, 1)))


class NoiseRobustness(Plot):
    """A column of panels a kind of noise, a row a metric and context."""

    name = "noise_robustness"
    title = "Robustness to noise"
    caption = (
        "Mean squared error of reconstructions under noise, against the originals and against the "
        "noise-free reconstructions. Horizontal lines: no noise, and noise that has no level. "
        "Bands: 95 % interval over seeds, or over images of a single seed."
    )

    def data(self, run: Run) -> pd.DataFrame:
        """One row a seed, kind and level, and one for the mean where there are several seeds."""
        rows = measured(run, METRICS)
        keep = [
            "metric", "split", "context", "unit", "higher_is_better", "label", "model",
            "model_version", "backend", "dataset", "protocol", "protocol_hash", "n", "noise_kind",
            "noise_level", "estimate", "seed", "seeds", "value", "ci_low", "ci_high",
        ]  # fmt: skip
        return with_means(rows[rows["noise_kind"].notna()]).reindex(columns=keep)

    def reason(self, run: Run) -> str:
        """No robustness was measured."""
        return unmeasured(run, METRICS)

    def figure(self, data: pd.DataFrame, run: Run) -> Figure:
        """Panels share their metric's axis along a row."""
        curves = Curves(data, run)
        data = data.assign(crowd=by_crowd(data))
        shown = drawn(data, ["metric", "context", "label", "backend", "noise_kind", "noise_level"])
        levelled = shown["noise_level"].notna() & (shown["noise_kind"] != NONE)
        kinds = sorted(shown.loc[levelled, "noise_kind"].unique()) or [NONE]
        references = _references(shown[~levelled])
        by = ["context", "metric", "crowd"]
        rows = [part for _, part in panels(shown.sort_values(by, kind="stable"), by)]
        room = curves.legend_height(references)
        heights = [1.95] * len(rows)
        figure, axes = grid(len(rows), len(kinds), heights, room, sharex="col", sharey="row")
        for line, part in zip(axes, rows, strict=True):
            for ax, kind in zip(line, kinds, strict=True):
                _panel(ax, part, kind, curves, references)
                ax.set_title(plain(kind), loc="left")
            line[0].set_ylabel(axis_label(part.iloc[0], 1.7))
            line[0].set_title(f"{wrapped(where(part), WIDTH)}\n{plain(kinds[0])}", loc="left")
        for ax in axes[-1]:
            ax.set_xlabel("noise level a")
        lines = {k: Line2D([], [], color=GREY, linestyle=v) for k, v in references.items()}
        curves.legend(figure, [(lines[kind], _named(kind)) for kind in references])
        return figure


def _references(rows: pd.DataFrame) -> dict[str, Any]:
    """The kinds that are horizontal lines, no noise first, and their line styles."""
    kinds = sorted(rows["noise_kind"].unique(), key=lambda kind: (kind != NONE, kind))
    return dict(zip(kinds, itertools.cycle(REFERENCE_LINES)))


def _named(kind: str) -> str:
    return "no noise" if kind == NONE else f"{kind} (no level)"


def _panel(
    ax: Axes, rows: pd.DataFrame, kind: str, curves: Curves, references: dict[str, Any]
) -> None:
    """Curves of one kind; reference lines of no noise and of kinds on the same side, as latent."""
    curves.draw(ax, rows[(rows["noise_kind"] == kind) & (kind != NONE)], "noise_level")
    side = kind.partition("_")[0]
    for row in records(rows[rows["noise_kind"].isin(references)]):
        if NONE in (kind, row["noise_kind"]) or row["noise_kind"].partition("_")[0] == side:
            curves.level(ax, row, references[row["noise_kind"]])
    ax.set(xlabel="", ylabel="")
