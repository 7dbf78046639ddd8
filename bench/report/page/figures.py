"""The plots of a run and the image grids of its cells, ready to be shown or written."""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report.plots.drawing import draw_plot, load_plots
from bench.report.plots.plot import NotDrawnError, Plot
from bench.report.run_reader import Run

# An SVG above this is drawn as PNG, data above it is compressed: a report is to stay a small file.
LARGE_SVG = 300_000
LARGE_CSV = 500_000
GRID_BYTES = 6_000_000
GRIDS = {
    "inputs": "Test images",
    "reconstructions": "Their reconstructions",
    "samples": "Samples",
}
SETTING = ["model", "backend", "dataset", "protocol_hash"]


@dataclass(frozen=True)
class File:
    """A file's name, its content and its media type."""

    name: str
    content: bytes
    media_type: str


@dataclass(frozen=True)
class Drawn:
    """A plot of the report.

    Attributes:
        name: registered name, which ``bench plot`` takes.
        title: what the plot shows, in a few words.
        caption: what its points, error bars and bands are.
        image: the figure; None if the plot cannot be drawn.
        data: the rows that the figure shows, as CSV; None if the plot cannot be drawn.
        reason: the reason why the plot cannot be drawn; empty if it is drawn.
    """

    name: str
    title: str
    caption: str
    image: File | None = None
    data: File | None = None
    reason: str = ""


@dataclass(frozen=True)
class Grid:
    """A grid of images of one cell: what it shows, of which cell, and the file."""

    title: str
    of: str
    image: File


@dataclass(frozen=True)
class Grids:
    """Image grids of a run.

    Attributes:
        shown: the first seed of each setting; inputs once a dataset and protocol.
        left_out: how many more there are on disk that are not shown for their size.
    """

    shown: tuple[Grid, ...]
    left_out: int


def drawn(run: Run) -> Iterator[Drawn]:
    """Draw every plot, in the order of the report; a plot that fails is yielded with its reason."""
    for name, plot in load_plots().items():
        try:
            yield _drawn(name, plot, run)
        except NotDrawnError as error:
            yield Drawn(name, plot.title, plot.caption, reason=str(error))


def _drawn(name: str, plot: Plot, run: Run) -> Drawn:
    drawing = draw_plot(plot, run)
    image = File(f"{name}.svg", drawing.render("svg"), "image/svg+xml")
    if len(image.content) > LARGE_SVG:
        image = File(f"{name}.png", drawing.render("png"), "image/png")
    return Drawn(name, plot.title, plot.caption, image, _csv(name, drawing.csv()))


def grids(run: Run) -> Grids:
    """Grids of test images, reconstructions and samples, as the cells kept them."""
    shown: list[Grid] = []
    seen, left_out, room = set(), 0, GRID_BYTES
    for cell in _cells(run):
        data = f"{cell.dataset}, seed {cell.seed}"
        for name, title in GRIDS.items():
            of = f"{cell.model}/{cell.backend} on {data}"
            inputs = (cell.dataset, cell.dataset_fingerprint, cell.protocol_hash)
            path = Path(cell.folder) / "images" / f"{name}.png"
            if (name == "inputs" and inputs in seen) or not path.is_file():
                continue
            if name == "inputs":
                seen.add(inputs)
                of = str(cell.dataset)
            size = path.stat().st_size
            if size > room:
                left_out += 1
                continue
            room -= size
            file = File(f"{cell.cell_key}-{name}.png", path.read_bytes(), "image/png")
            shown.append(Grid(title, of, file))
    return Grids(tuple(shown), left_out)


def _cells(run: Run) -> Iterator[Any]:
    """The first seed of each setting, as named tuples."""
    yield from run.cells.drop_duplicates(SETTING).itertuples(index=False)


def _csv(name: str, content: bytes) -> File:
    if len(content) <= LARGE_CSV:
        return File(f"{name}.csv", content, "text/csv")
    return File(f"{name}.csv.gz", gzip.compress(content, mtime=0), "application/gzip")
