"""Image grids of all models on the same inputs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bench.report.plots.mosaic import GAP, Shape, Tile, show
from bench.report.plots.plot import Plot, without_file
from bench.report.plots.plot_data import contexts, labels, panels, records
from bench.report.plots.style import WIDTH, grid, wrapped
from bench.report.run_reader import IMAGES_FILE, Arrays, Run

INPUT = "input"
NAME_INCHES = 1.6
SHOWN = 12
NOISY_ROWS = 6
AGAIN = "written by an older version, or by no model; run the same command again to have them"
KEEP = [
    "context", "label", "model", "model_version", "backend", "dataset", "protocol",
    "protocol_hash", "seed", "cell_key", "file", "array", "noise_level", "index_in_array", "block",
    "row", "column", "row_name", "heading",
]  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """The cell that stands for a model and backend: its lowest seed with a readable file."""

    cell: Any
    file: str
    arrays: Arrays


class _Grid(Plot):
    """Blocks of rows, one a context; the data says which image of which file a tile shows."""

    def data(self, run: Run) -> pd.DataFrame:
        """One row a tile: ``file`` in the run directory, ``array`` and ``index_in_array``."""
        tiles = [
            {**_known(chosen), "block": number, **tile}
            for number, block in enumerate(_blocks(run))
            for chosen, tile in self.tiles(block)
        ]
        if not tiles:
            return pd.DataFrame(columns=KEEP)
        table = pd.DataFrame(tiles)
        table = table.assign(label=labels(table, run), context=contexts(table))
        return table.assign(row_name=_named(table)).reindex(columns=KEEP)

    def reason(self, run: Run) -> str:
        """No file of images."""
        return without_file(run, IMAGES_FILE, AGAIN)

    def tiles(self, block: list[Chosen]) -> Iterator[tuple[Chosen, dict[str, Any]]]:
        """The tiles of models that had the same inputs."""
        raise NotImplementedError

    def figure(self, data: pd.DataFrame, run: Run) -> Figure:
        """One mosaic a block."""
        blocks = [part for _, part in panels(data, ["block"])]
        columns = int(data["column"].max()) + 1
        tile = min(0.62, (WIDTH - NAME_INCHES - 0.2) / columns / (1 + GAP))
        shapes = [Shape.of(part, columns, NAME_INCHES, tile) for part in blocks]
        figure, axes = grid(len(blocks), 1, [0.3 + shape.height for shape in shapes], legend=0.0)
        for ax, part, shape in zip(axes.flat, blocks, shapes, strict=True):
            show(ax, list(_tiles(part, run)), shape)
            ax.set_title(wrapped(part["context"].iloc[0], WIDTH - NAME_INCHES), loc="left", pad=6)
        return figure


class Reconstructions(_Grid):
    """Input images and every model's reconstructions of them."""

    name = "reconstructions"
    title = "Reconstructions"
    caption = (
        "The same test images reconstructed by every model and backend; of several seeds the "
        "lowest is shown."
    )

    def tiles(self, block: list[Chosen]) -> Iterator[tuple[Chosen, dict[str, Any]]]:
        """The inputs, then a row a model and backend."""
        able = [chosen for chosen in block if "reconstructions" in chosen.arrays]
        if able:
            yield from _row(able[0], "inputs", 0, INPUT)
        for row, chosen in enumerate(able, start=1):
            yield from _row(chosen, "reconstructions", row)


class Samples(_Grid):
    """Every model's samples."""

    name = "samples"
    title = "Samples"
    caption = (
        "Images that every model and backend samples, the first ones and not chosen; of several "
        "seeds the lowest is shown."
    )

    def tiles(self, block: list[Chosen]) -> Iterator[tuple[Chosen, dict[str, Any]]]:
        """A row a model and backend."""
        able = [chosen for chosen in block if "samples" in chosen.arrays]
        for row, chosen in enumerate(able):
            yield from _row(chosen, "samples", row)


class LatentNoise(_Grid):
    """As Figure 1 of ESVAE (arXiv:2310.14839)."""

    name = "latent_noise"
    title = "Reconstructions under latent noise"
    caption = (
        "From left to right: a test image, its reconstruction, its reconstruction from the latent "
        "with its time steps shuffled, and from latents of which each spike is flipped with "
        "probability a; of several seeds the lowest is shown. n/a: the model has no such ability."
    )
    single: ClassVar[list[tuple[str, str]]] = [
        ("inputs", INPUT),
        ("reconstructions", "recon-\nstruction"),
        ("latent_shuffle", "time-\nshuffled"),
    ]

    def tiles(self, block: list[Chosen]) -> Iterator[tuple[Chosen, dict[str, Any]]]:
        """A row a model and backend; of few models, several images."""
        able = [c for c in block if {"latent_flip", "latent_shuffle"} & set(c.arrays)]
        levels = sorted({float(a) for c in able for a in c.arrays.get("latent_flip_levels", [])})
        images = min([max(1, NOISY_ROWS // max(1, len(able))), *(_least(c) for c in able)])
        for index in range(images):
            for position, chosen in enumerate(able):
                row = index * len(able) + position
                yield from self._tiles(chosen, levels, index, row)

    def _tiles(
        self, chosen: Chosen, levels: list[float], index: int, row: int
    ) -> Iterator[tuple[Chosen, dict[str, Any]]]:
        at = {"index_in_array": index, "row": row, "row_name": ""}
        for column, (array, heading) in enumerate(self.single):
            if array in chosen.arrays:
                yield chosen, {"array": array, "column": column, "heading": heading, **at}
        own = [float(a) for a in chosen.arrays.get("latent_flip_levels", [])]
        for column, level in enumerate(levels, start=len(self.single)):
            if level in own:
                heading = f"a =\n{level:.2f}" if column == len(self.single) else f"\n{level:.2f}"
                tile = {"array": "latent_flip", "noise_level": level, "column": column}
                yield chosen, {**tile, "heading": heading, **at}


def _blocks(run: Run) -> list[list[Chosen]]:
    """For each context the chosen cells, parted where they were shown different inputs."""
    blocks: dict[tuple[Any, ...], dict[tuple[Any, ...], Chosen]] = {}
    for cell in run.having(IMAGES_FILE):
        key = (cell.dataset, cell.dataset_fingerprint, cell.protocol_hash)
        series = (cell.model, cell.model_version, cell.backend)
        if any(series in block for known, block in blocks.items() if known[:-1] == key):
            continue
        arrays = run.images(cell.folder)
        if not arrays:
            continue
        inputs = arrays.get("inputs", np.zeros(0, dtype=np.uint8)).tobytes()
        file = (cell.folder / IMAGES_FILE).relative_to(run.path).as_posix()
        blocks.setdefault((*key, inputs), {})[series] = Chosen(cell, file, arrays)
    return [list(block.values()) for block in blocks.values()]


def _known(chosen: Chosen) -> dict[str, Any]:
    return {**chosen.cell._asdict(), "file": chosen.file}


def _least(chosen: Chosen) -> int:
    """How many images every array of the file holds."""
    return min(
        array.shape[1 if name == "latent_flip" else 0]
        for name, array in chosen.arrays.items()
        if name in {"inputs", "reconstructions", "latent_shuffle", "latent_flip"}
    )


def _row(
    chosen: Chosen, array: str, row: int, name: str = ""
) -> Iterator[tuple[Chosen, dict[str, Any]]]:
    for column in range(min(SHOWN, len(chosen.arrays.get(array, [])))):
        tile = {"array": array, "index_in_array": column, "row": row, "column": column}
        yield chosen, {**tile, "heading": "", "row_name": name}


def _named(table: pd.DataFrame) -> pd.Series:
    """What stands beside each tile's row."""
    models = table["label"] + "\n" + table["backend"] + ", seed " + table["seed"].astype(str)
    return models.where(table["row_name"] == "", table["row_name"])


def _tiles(part: pd.DataFrame, run: Run) -> Iterator[Tile]:
    """The images of a block, each file read once."""
    for file, rows in part.groupby("file", sort=False):
        arrays = run.images((run.path / str(file)).parent) or {}
        for row in records(rows[rows["array"].isin(list(arrays))]):
            images = arrays[row["array"]]
            if row["array"] == "latent_flip":
                levels = arrays["latent_flip_levels"]
                images = images[int(np.argmin(np.abs(levels - row["noise_level"])))]
            yield Tile(row["row"], row["column"], images[row["index_in_array"]])
