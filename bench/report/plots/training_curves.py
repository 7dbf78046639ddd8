"""Training curves."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.report.plots.curves import Curves, by_crowd, where
from bench.report.plots.plot import Plot, without_file
from bench.report.plots.plot_data import contexts, labels, panels
from bench.report.plots.style import LOWER, WIDTH, blank, grid, log_if_wide, wrapped
from bench.report.run_reader import TRAINING_FILE, Run

FIRST = ("reconstruction_loss", "loss")
MARKERS_A_CURVE = 8
KEEP = [
    "loss", "context", "label", "model", "model_version", "backend", "dataset", "protocol",
    "protocol_hash", "seed", "epoch", "value", "cell_key",
]  # fmt: skip


class TrainingCurves(Plot):
    """A panel a loss and context, epochs across."""

    name = "training_curves"
    title = "Training curves"
    caption = (
        "Losses on the training images, averaged over each epoch: the mean over seeds, with a band "
        "from the lowest seed to the highest. Each model weighs and defines its loss and its "
        "divergence (kl, mmd) itself: between models only reconstruction_loss compares."
    )

    def data(self, run: Run) -> pd.DataFrame:
        """One row a seed, epoch and loss."""
        table = pd.DataFrame(_epochs(run))
        if table.empty:
            return pd.DataFrame(columns=KEEP)
        table = table.assign(label=labels(table, run), context=contexts(table))
        return table.reindex(columns=KEEP)

    def reason(self, run: Run) -> str:
        """No cell was trained."""
        return without_file(run, TRAINING_FILE, "no cell was trained to its end")

    def figure(self, data: pd.DataFrame, run: Run) -> Figure:
        """Two or three panels a row, each context on rows of its own."""
        curves = Curves(data, run)
        shown = _over_seeds(data.assign(crowd=by_crowd(data)))
        groups = [
            sorted((part for _, part in panels(group, ["loss"])), key=_order)
            for _, group in panels(shown, ["context", "crowd"])
        ]
        most = max(map(len, groups))
        columns = 2 if most in (2, 4) else min(most, 3)
        lines = [group[i : i + columns] for group in groups for i in range(0, len(group), columns)]
        heights = [1.95] * len(lines)
        figure, axes = grid(len(lines), columns, heights, curves.legend_height())
        for line, parts in zip(axes, lines, strict=True):
            for ax, part in zip(line, parts, strict=False):
                every = max(1, part["epoch"].max() // MARKERS_A_CURVE)
                curves.draw(ax, part, "epoch", every=every)
                log_if_wide(ax, part["value"], "y")
                ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
                ax.set_ylabel(wrapped(f"{part['loss'].iloc[0]}\n{LOWER}", 1.7))
                own = "" if part["loss"].iloc[0] == FIRST[0] else "each model's own definition"
                named = f"{where(part)}\n{own}" if ax is line[0] else own
                ax.set_title(wrapped(named.strip(), WIDTH), loc="left")
            blank(line[len(parts) :])
        curves.legend(figure)
        return figure


def _epochs(run: Run) -> Iterator[dict[str, Any]]:
    for cell in run.having(TRAINING_FILE):
        known = {name: value for name, value in cell._asdict().items() if name != "folder"}
        for number, epoch in enumerate(run.training(cell.folder) or [], start=1):
            for name, value in epoch["losses"].items():
                yield {**known, "epoch": number, "loss": name, "value": float(value)}


def _over_seeds(data: pd.DataFrame) -> pd.DataFrame:
    by = ["context", "crowd", "loss", "label", "backend", "epoch"]
    values = data.groupby(by, sort=False)["value"]
    return values.agg(value="mean", ci_low="min", ci_high="max").reset_index()


def _order(part: pd.DataFrame) -> tuple[int, str]:
    """The losses that every model has come first."""
    name = part["loss"].iloc[0]
    return (FIRST.index(name) if name in FIRST else len(FIRST), name)
