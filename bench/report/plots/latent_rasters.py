"""Spike rasters of the latent."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.report.plots.plot import Plot
from bench.report.plots.plot_data import contexts, groups, missing_file, model_labels
from bench.report.plots.style import (
    LINE_INCHES,
    WIDTH,
    hide_panels,
    panel_grid,
    set_row_title,
    text_height,
    wrap_text,
)
from bench.report.run_reader import Run
from bench.store.schema import SPIKES_FILE

LATENTS = ("posterior", "prior")
PAIRS = 3
"""Pairs of panels in a row."""
PANEL_INCHES = 1.9
SHOWN = [
    "context", "label", "model", "model_version", "backend", "dataset", "protocol",
    "protocol_hash", "seed", "cell_key", "file", "latent", "image", "time_step", "neuron", "spike",
]  # fmt: skip
NO_SPIKES = (
    "models without spikes write none, and neither did older versions; run the same command again "
    "to write them"
)


class LatentRasters(Plot):
    """Spikes of the latent, posterior and prior: neurons up, time steps across."""

    title = "Latent spikes"
    caption = (
        "Spikes (dark) of the latent's neurons at each time step: posterior of the first test "
        "image and prior of the first sample. If there are several seeds, the lowest is shown."
    )
    order = 110

    def draw(self, run: Run) -> tuple[Figure, pd.DataFrame]:
        """Draw a pair of panels per model and backend.

        The data has a row per neuron and time step, both counted from 1; ``spike`` is 0 or 1.
        """
        parts = list(_rasters(run))
        if not parts:
            raise missing_file(run, SPIKES_FILE, NO_SPIKES)
        rows = pd.concat(parts, ignore_index=True)
        rows = rows.assign(label=model_labels(rows, run), context=contexts(rows))
        rows = rows.reindex(columns=SHOWN)
        return _figure(rows), rows


def _rasters(run: Run) -> Iterator[pd.DataFrame]:
    """Yield the spikes of each latent, of the lowest seed of each model, backend and context."""
    done = set()
    for cell in run.having(SPIKES_FILE):
        series = (
            cell.dataset, cell.dataset_fingerprint, cell.protocol, cell.protocol_hash, cell.model,
            cell.model_version, cell.backend,
        )  # fmt: skip
        if series in done:
            continue
        arrays = run.spikes(cell.folder) or {}
        file = (cell.folder / SPIKES_FILE).relative_to(run.path).as_posix()
        known = {**cell._asdict(), "file": file, "image": 0}
        for latent in LATENTS:
            if latent in arrays and arrays[latent].size:
                done.add(series)
                yield _spike_table(arrays[latent][:, 0]).assign(latent=latent, **known)


def _spike_table(spikes: np.ndarray) -> pd.DataFrame:
    """Return spikes of shape (T, D) as a tidy table of T * D rows."""
    steps, neurons = np.indices(spikes.shape)
    return pd.DataFrame(
        {
            "time_step": steps.ravel() + 1,
            "neuron": neurons.ravel() + 1,
            "spike": spikes.ravel().astype(int),
        }
    )


def _figure(rows: pd.DataFrame) -> Figure:
    """Draw three pairs per row; each context has rows of its own, the first one with a title."""
    lines, titles = [], []
    for (context,), group in groups(rows, ["context"]):
        pairs = [part for _, part in groups(group, ["label", "backend"])]
        starts = range(0, len(pairs), PAIRS)
        lines += [pairs[start : start + PAIRS] for start in starts]
        titles += ["" if start else wrap_text(context, WIDTH - 1) for start in starts]
    names = [[_name(pair) for pair in pairs] for pairs in lines]
    heights = [
        PANEL_INCHES - LINE_INCHES + text_height(pair_names) + text_height(filter(None, [title]))
        for pair_names, title in zip(names, titles, strict=True)
    ]
    figure, axes = panel_grid(2 * PAIRS, heights, legend_inches=0.1)
    for row, pairs, pair_names, title in zip(axes, lines, names, titles, strict=True):
        for i, (pair, name) in enumerate(zip(pairs, pair_names, strict=True)):
            _draw_pair(row[2 * i : 2 * i + 2], pair, name, title if i == 0 else "")
        hide_panels(row[2 * len(pairs) :])
    return figure


def _name(pair: pd.DataFrame) -> str:
    first = pair.iloc[0]
    name = f"{first['label']}\n{first['backend']}, seed {first['seed']}"
    return wrap_text(name, WIDTH / PAIRS - 0.3)


def _draw_pair(axes: Any, pair: pd.DataFrame, name: str, row_title: str) -> None:
    """Draw posterior and prior of a model and backend.

    Args:
        axes: array of two panels.
        pair: the spikes of both latents.
        name: name of the model and backend, with line breaks.
        row_title: title of the row, above the name; "" if there is none.
    """
    for ax, latent in zip(axes, LATENTS, strict=True):
        spikes = pair[pair["latent"] == latent]
        if spikes.empty:
            hide_panels([ax])
        else:
            _draw_raster(ax, spikes)
        ax.set_title(latent, loc="left")
    set_row_title(axes[0], f"{row_title}\n{name}" if row_title else name, LATENTS[0])
    axes[0].set_ylabel("neuron")
    axes[1].tick_params(labelleft=False)


def _draw_raster(ax: Axes, spikes: pd.DataFrame) -> None:
    table = spikes.pivot(index="neuron", columns="time_step", values="spike")
    neurons, steps = table.shape
    ax.imshow(
        table.to_numpy(), cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="none",
        origin="lower", extent=(0.5, steps + 0.5, 0.5, neurons + 0.5),
    )  # fmt: skip
    ax.grid(False)
    ax.spines[:].set_visible(True)
    ax.set_xlabel("time step")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
