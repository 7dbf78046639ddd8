"""Spike rasters of the latent."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.report.plots.plot import Plot, without_file
from bench.report.plots.plot_data import contexts, labels, panels
from bench.report.plots.style import WIDTH, blank, grid, wrapped
from bench.report.run_reader import SPIKES_FILE, Run

LATENTS = ("posterior", "prior")
PAIRS = 3
"""Models and backends side by side."""
HEIGHT = 1.9
KEEP = [
    "context", "label", "model", "model_version", "backend", "dataset", "protocol",
    "protocol_hash", "seed", "cell_key", "file", "latent", "image", "time_step", "neuron", "spike",
]  # fmt: skip


class LatentRasters(Plot):
    """A pair of panels a model and backend: posterior and prior, neurons up, time steps across."""

    name = "latent_rasters"
    title = "Latent spikes"
    caption = (
        "Spikes (dark) of the latent's neurons at each time step: posterior of the first test "
        "image and prior of the first sample; of several seeds the lowest is shown."
    )

    def data(self, run: Run) -> pd.DataFrame:
        """One row a neuron and time step, ``spike`` 0 or 1; both are counted from 1."""
        parts = list(_rasters(run))
        if not parts:
            return pd.DataFrame(columns=KEEP)
        table = pd.concat(parts, ignore_index=True)
        return table.assign(label=labels(table, run), context=contexts(table)).reindex(columns=KEEP)

    def reason(self, run: Run) -> str:
        """No file of spikes."""
        return without_file(
            run,
            SPIKES_FILE,
            "models without spikes have none, and older versions wrote none; run the same command "
            "again to have them",
        )

    def figure(self, data: pd.DataFrame, run: Run) -> Figure:
        """Three pairs a row, each context on rows of its own."""
        lines = []
        for _, group in panels(data, ["context"]):
            pairs = [part for _, part in panels(group, ["label", "backend"])]
            lines += [pairs[i : i + PAIRS] for i in range(0, len(pairs), PAIRS)]
        inches = WIDTH / PAIRS - 0.3
        names = [[wrapped(_name(pair), inches) for pair in pairs] for pairs in lines]
        tallest = [max(name.count("\n") for name in line) for line in names]
        heights = [HEIGHT + 0.14 * lines_ for lines_ in tallest]
        figure, axes = grid(len(lines), 2 * PAIRS, heights, legend=0.1)
        shown_context = None
        for line, pairs, titles in zip(axes, lines, names, strict=True):
            for i, (pair, name) in enumerate(zip(pairs, titles, strict=True)):
                _pair(line[2 * i : 2 * i + 2], pair, name)
            context = pairs[0]["context"].iloc[0]
            if context != shown_context:
                title = f"{wrapped(context, WIDTH)}\n{line[0].get_title(loc='left')}"
                line[0].set_title(title, loc="left")
                shown_context = context
            blank(line[2 * len(pairs) :])
        return figure


def _rasters(run: Run) -> Iterator[pd.DataFrame]:
    done = set()
    for cell in run.having(SPIKES_FILE):
        series = (
            cell.dataset, cell.dataset_fingerprint, cell.protocol_hash, cell.model,
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
                yield _spikes(arrays[latent][:, 0]).assign(latent=latent, **known)


def _spikes(spikes: np.ndarray) -> pd.DataFrame:
    """Spikes ``(T, D)`` as a tidy table."""
    steps, neurons = np.indices(spikes.shape)
    return pd.DataFrame(
        {
            "time_step": steps.ravel() + 1,
            "neuron": neurons.ravel() + 1,
            "spike": spikes.ravel().astype(int),
        }
    )


def _name(pair: pd.DataFrame) -> str:
    first = pair.iloc[0]
    return f"{first['label']}\n{first['backend']}, seed {first['seed']}"


def _pair(axes: Any, pair: pd.DataFrame, name: str) -> None:
    for ax, latent in zip(axes, LATENTS, strict=True):
        one = pair[pair["latent"] == latent]
        if one.empty:
            blank([ax])
        else:
            _raster(ax, one)
        ax.set_title(latent if latent != LATENTS[0] else f"{name}\n{latent}", loc="left")
    axes[0].set_ylabel("neuron")
    axes[1].tick_params(labelleft=False)


def _raster(ax: Axes, one: pd.DataFrame) -> None:
    table = one.pivot(index="neuron", columns="time_step", values="spike")
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
