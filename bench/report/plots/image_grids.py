"""Image grids of all models on the same inputs."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bench.report.plots.mosaic import GAP, MosaicLayout, Tile, draw_mosaic
from bench.report.plots.plot import Plot
from bench.report.plots.plot_data import contexts, groups, missing_file, model_labels
from bench.report.plots.style import LINE_INCHES, WIDTH, panel_grid, text_height, wrap_text
from bench.report.query import records
from bench.report.run_reader import Arrays, Run
from bench.store.schema import IMAGES_FILE

INPUT = "input"
SINGLE_COLUMNS = [
    ("inputs", INPUT),
    ("reconstructions", "recon-\nstruction"),
    ("latent_shuffle", "time-\nshuffled"),
]
"""Array and heading of the columns to the left of the latent flips."""
NAME_INCHES = 1.6
MOST_IMAGES = 12
NOISY_ROWS = 6
NO_IMAGES = "only cells of models write it, and older versions did not; run the same command again"
SHOWN = [
    "context", "label", "model", "model_version", "backend", "dataset", "protocol",
    "protocol_hash", "seed", "cell_key", "file", "array", "noise_level", "index_in_array", "block",
    "row", "column", "row_name", "heading", "extractor", "distance", "text",
]  # fmt: skip


@dataclass(frozen=True)
class ShownCell:
    """The cell shown for a model and backend: the lowest seed with a readable file of images.

    Attributes:
        cell: the cell, as :meth:`Run.having` yields it.
        file: path of its images in the run directory.
        arrays: its images by name, as :meth:`Run.images` returns them.
    """

    cell: Any
    file: str
    arrays: Arrays


Tiles = Iterator[tuple[ShownCell, dict[str, Any]]]


class ImageGrid(Plot):
    """A mosaic per context; the data says which image of which file each tile shows.

    Attributes:
        file: name of the file in a cell's folder that has the images.
        no_file: when cells have the file, and how to get it.
    """

    file: ClassVar[str] = IMAGES_FILE
    no_file: ClassVar[str] = NO_IMAGES

    def draw(self, run: Run) -> tuple[Figure, pd.DataFrame]:
        """Draw the mosaics; the data has a row per tile."""
        tiles = [
            {**shown.cell._asdict(), "file": shown.file, "block": number, **tile}
            for number, block in enumerate(self._blocks(run))
            for shown, tile in self.tiles(block)
        ]
        if not tiles:
            raise missing_file(run, self.file, self.no_file)
        rows = pd.DataFrame(tiles)
        rows = rows.assign(label=model_labels(rows, run), context=contexts(rows))
        rows = rows.assign(row_name=_row_names(rows)).reindex(columns=SHOWN)
        return self._figure(rows, run), rows

    def read(self, run: Run, folder: Path) -> Arrays | None:
        """Return the images of a cell's file by name; None if it is missing or damaged."""
        return run.images(folder)

    @abstractmethod
    def tiles(self, block: list[ShownCell]) -> Tiles:
        """Yield the tiles of cells that had the same inputs."""

    def _blocks(self, run: Run) -> list[list[ShownCell]]:
        """Return the cells to show, grouped by context and by the inputs that they had."""
        blocks: dict[tuple[Any, ...], dict[tuple[Any, ...], ShownCell]] = {}
        for cell in run.having(self.file):
            key = (cell.dataset, cell.dataset_fingerprint, cell.protocol)
            series = (cell.model, cell.model_version, cell.backend, cell.protocol_hash)
            if any(series in block for known, block in blocks.items() if known[:-1] == key):
                continue
            arrays = self.read(run, cell.folder)
            if not arrays:
                continue
            inputs = arrays.get("inputs", np.zeros(0, dtype=np.uint8)).tobytes()
            file = (cell.folder / self.file).relative_to(run.path).as_posix()
            blocks.setdefault((*key, inputs), {})[series] = ShownCell(cell, file, arrays)
        return [list(block.values()) for block in blocks.values()]

    def _figure(self, rows: pd.DataFrame, run: Run) -> Figure:
        blocks = [part for _, part in groups(rows, ["block"])]
        columns = int(rows["column"].max()) + 1
        tile = min(0.62, (WIDTH - NAME_INCHES - 0.2) / columns / (1 + GAP))
        layouts = [MosaicLayout.of_tiles(part, columns, NAME_INCHES, tile) for part in blocks]
        titles = [wrap_text(part["context"].iloc[0], WIDTH - NAME_INCHES) for part in blocks]
        heights = [
            0.3 - LINE_INCHES + layout.height + text_height([title])
            for layout, title in zip(layouts, titles, strict=True)
        ]
        figure, axes = panel_grid(1, heights, legend_inches=0.0)
        for ax, part, layout, title in zip(axes.flat, blocks, layouts, titles, strict=True):
            draw_mosaic(ax, list(self._read_tiles(part, run)), layout)
            ax.set_title(title, loc="left", pad=6)
        return figure

    def _read_tiles(self, part: pd.DataFrame, run: Run) -> Iterator[Tile]:
        """Yield the images of a block, reading each file once."""
        for file, rows in part.groupby("file", sort=False):
            arrays = self.read(run, (run.path / str(file)).parent) or {}
            for row in records(rows[rows["array"].isin(list(arrays))]):
                images = arrays[row["array"]]
                if row["array"] == "latent_flip":
                    levels = arrays["latent_flip_levels"]
                    images = images[int(np.argmin(np.abs(levels - row["noise_level"])))]
                text = row["text"] if isinstance(row["text"], str) else ""
                yield Tile(row["row"], row["column"], images[row["index_in_array"]], text)


class Reconstructions(ImageGrid):
    """Test images, and every model's reconstructions of them."""

    title = "Reconstructions"
    caption = (
        "The same test images, reconstructed by every model and backend. If there are several "
        "seeds, the lowest is shown."
    )
    order = 80

    def tiles(self, block: list[ShownCell]) -> Tiles:
        """Yield the inputs, then a row per model and backend."""
        able = [shown for shown in block if "reconstructions" in shown.arrays]
        if able:
            yield from _row(able[0], "inputs", 0, INPUT)
        for row, shown in enumerate(able, start=1):
            yield from _row(shown, "reconstructions", row)


class Samples(ImageGrid):
    """Every model's samples."""

    title = "Samples"
    caption = (
        "The first images that each model and backend samples, without selection. If there are "
        "several seeds, the lowest is shown."
    )
    order = 90

    def tiles(self, block: list[ShownCell]) -> Tiles:
        """Yield a row per model and backend."""
        able = [shown for shown in block if "samples" in shown.arrays]
        for row, shown in enumerate(able):
            yield from _row(shown, "samples", row)


class LatentNoise(ImageGrid):
    """Reconstructions under noise on the latent, as in Figure 1 of ESVAE (arXiv:2310.14839)."""

    title = "Reconstructions under latent noise"
    caption = (
        "From left to right: a test image, its reconstruction, its reconstruction from the latent "
        "with its time steps shuffled, and from latents in which each spike is flipped with "
        "probability a. If there are several seeds, the lowest is shown. n/a: the model cannot do "
        "this."
    )
    order = 100

    def tiles(self, block: list[ShownCell]) -> Tiles:
        """Yield a row per model and backend; with few models, rows for several images."""
        able = [shown for shown in block if {"latent_flip", "latent_shuffle"} & set(shown.arrays)]
        levels = sorted({level for shown in able for level in _flip_levels(shown)})
        images = min([max(1, NOISY_ROWS // max(1, len(able))), *map(_image_count, able)])
        for index in range(images):
            for position, shown in enumerate(able):
                at = {"index_in_array": index, "row": index * len(able) + position, "row_name": ""}
                for tile in _noisy_tiles(shown, levels):
                    yield shown, {**tile, **at}


def _row(shown: ShownCell, array: str, row: int, name: str = "") -> Tiles:
    for column in range(min(MOST_IMAGES, len(shown.arrays.get(array, [])))):
        tile = {"array": array, "index_in_array": column, "row": row, "column": column}
        yield shown, {**tile, "heading": "", "row_name": name}


def _noisy_tiles(shown: ShownCell, levels: list[float]) -> Iterator[dict[str, Any]]:
    """Yield the columns of a row of latent noise; a level that the cell lacks leaves a gap."""
    for column, (array, heading) in enumerate(SINGLE_COLUMNS):
        if array in shown.arrays:
            yield {"array": array, "column": column, "heading": heading}
    for column, level in enumerate(levels, start=len(SINGLE_COLUMNS)):
        if level in _flip_levels(shown):
            first = column == len(SINGLE_COLUMNS)
            heading = f"a =\n{level:.2f}" if first else f"\n{level:.2f}"
            tile = {"array": "latent_flip", "noise_level": level, "column": column}
            yield {**tile, "heading": heading}


def _flip_levels(shown: ShownCell) -> list[float]:
    return [float(level) for level in shown.arrays.get("latent_flip_levels", [])]


def _image_count(shown: ShownCell) -> int:
    """Return the number of images that every array of the file has."""
    return min(
        array.shape[1 if name == "latent_flip" else 0]
        for name, array in shown.arrays.items()
        if name in {"inputs", "reconstructions", "latent_shuffle", "latent_flip"}
    )


def _row_names(rows: pd.DataFrame) -> pd.Series:
    models = rows["label"] + "\n" + rows["backend"] + ", seed " + rows["seed"].astype(str)
    return models.where(rows["row_name"] == "", rows["row_name"])
