"""Training curves: losses and scores by epoch."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.report.plots.curves import Curves, backend_panels, panel_context
from bench.report.plots.plot import Plot
from bench.report.plots.plot_data import contexts, groups, missing_file, model_labels
from bench.report.plots.style import (
    WIDTH,
    hide_panels,
    log_if_wide,
    panel_grid,
    set_row_title,
    text_height,
    wrap_text,
)
from bench.report.run_reader import Run
from bench.store.schema import TRAINING_FILE

SHARED_LOSSES = ("reconstruction_loss", "loss")
"""Losses that most models have; only the first means the same in every model."""
OWN_DEFINITION = "each model's own definition"
LOSS, SCORE = "loss", "score"
SCORED = "after the epoch"
MARKERS_PER_CURVE = 8
PANEL_INCHES = 1.95
SHOWN = [
    "loss", "kind", "context", "label", "model", "model_version", "backend", "dataset", "protocol",
    "protocol_hash", "seed", "epoch", "value", "cell_key",
]  # fmt: skip


class TrainingCurves(Plot):
    """Training losses by epoch, and the scores by which epochs are selected."""

    title = "Training curves"
    caption = (
        "Losses on the training images, averaged over each epoch: the mean over seeds, with a band "
        "from the lowest seed to the highest. Each model defines its own loss and divergence (kl, "
        "mmd): only reconstruction_loss can be compared between models. Scores are of the model "
        "after the epoch, on the images by which epochs are selected."
    )
    order = 70

    def draw(self, run: Run) -> tuple[Figure, pd.DataFrame]:
        """Draw a panel per loss or score and context; the data has a row per seed and epoch."""
        rows = pd.DataFrame(_epochs(run))
        if rows.empty:
            raise missing_file(run, TRAINING_FILE, "no cell was trained to its end")
        rows = rows.assign(label=model_labels(rows, run), context=contexts(rows))
        rows = rows.reindex(columns=SHOWN)
        return _figure(rows, Curves(rows, run)), rows


def _epochs(run: Run) -> Iterator[dict[str, Any]]:
    for cell in run.having(TRAINING_FILE):
        known = {name: value for name, value in cell._asdict().items() if name != "folder"}
        for number, epoch in enumerate(run.training(cell.folder) or [], start=1):
            stage = epoch.get("stage", "")
            for name, value in epoch["losses"].items():
                loss = f"{name}, stage {stage}" if stage else name
                yield {**known, "epoch": number, "loss": loss, "kind": LOSS, "value": float(value)}
            for name, value in epoch.get("scores", {}).items():
                yield {**known, "epoch": number, "loss": name, "kind": SCORE, "value": float(value)}


def _figure(rows: pd.DataFrame, curves: Curves) -> Figure:
    """Draw two or three panels per row; each context has rows of its own."""
    points = _over_seeds(rows.assign(backend_panel=backend_panels(rows)))
    by_context = [
        sorted((part for _, part in groups(group, ["kind", "loss"])), key=_place)
        for _, group in groups(points, ["context", "backend_panel"])
    ]
    most = max(map(len, by_context))
    columns = 2 if most in (2, 4) else min(most, 3)
    lines = [parts[i : i + columns] for parts in by_context for i in range(0, len(parts), columns)]
    titles = [wrap_text(panel_context(parts[0]), WIDTH - 1) for parts in lines]
    heights = [PANEL_INCHES + text_height([title]) for title in titles]
    figure, axes = panel_grid(columns, heights, curves.legend_height())
    for row, parts, title in zip(axes, lines, titles, strict=True):
        for ax, part in zip(row, parts, strict=False):
            _draw_panel(ax, part, curves)
            ax.set_title(_own_title(part), loc="left")
        # The titles of the other panels are in the line below the row's title.
        set_row_title(row[0], title, _own_title(parts[0]) or " ")
        hide_panels(row[len(parts) :])
    curves.add_legend(figure)
    return figure


def _draw_panel(ax: Axes, part: pd.DataFrame, curves: Curves) -> None:
    marker_step = max(1, part["epoch"].max() // MARKERS_PER_CURVE)
    curves.draw(ax, part, "epoch", marker_step=marker_step)
    log_if_wide(ax, part["value"], "y")
    if part["epoch"].max() == 1:
        ax.set_xlim(0.5, 1.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
    ax.set_xlabel("epoch")
    ax.set_ylabel(wrap_text(part["loss"].iloc[0].replace("_", " "), 1.7))


def _own_title(part: pd.DataFrame) -> str:
    first = part.iloc[0]
    if first["kind"] == SCORE:
        return SCORED
    return "" if first["loss"] == SHARED_LOSSES[0] else OWN_DEFINITION


def _over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Return mean, minimum and maximum over seeds, as ``value``, ``ci_low`` and ``ci_high``."""
    by = ["context", "backend_panel", "kind", "loss", "label", "backend", "epoch"]
    values = rows.groupby(by, sort=False)["value"]
    return values.agg(value="mean", ci_low="min", ci_high="max").reset_index()


def _place(part: pd.DataFrame) -> tuple[bool, int, str]:
    """Return a key that sorts losses before scores, and first the losses of most models."""
    kind, name = part["kind"].iloc[0], part["loss"].iloc[0]
    place = SHARED_LOSSES.index(name) if name in SHARED_LOSSES else len(SHARED_LOSSES)
    return (kind == SCORE, place, name)
