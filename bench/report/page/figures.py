"""The plots of a run and the image grids of its cells, as files."""

import gc
import gzip
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report.plots.drawing import draw_plot, load_plots
from bench.report.plots.plot import NotDrawnError, Plot
from bench.report.run_reader import Run
from bench.store.schema import CELL, IMAGES_FOLDER

# A larger SVG is drawn as PNG and larger data is compressed, which keeps the report small.
LARGE_SVG = 300_000
LARGE_CSV = 500_000
GRID_BYTES = 6_000_000
OBJECTS_BETWEEN_COLLECTIONS = 50_000
GRIDS = {
    "inputs": "Test images",
    "reconstructions": "Their reconstructions",
    "samples": "Samples",
}


@dataclass(frozen=True)
class File:
    """A file.

    Attributes:
        name: name without a folder.
        content: bytes of the file.
        media_type: media type, such as ``image/png``.
    """

    name: str
    content: bytes
    media_type: str


@dataclass(frozen=True)
class Drawn:
    """A plot, or the reason why it was not drawn.

    Attributes:
        name: name that ``bench plot`` takes.
        title: what the plot shows, in a few words.
        caption: what the points, error bars and bands are.
        image: the figure; None if it was not drawn.
        data: the rows that the figure shows, as CSV; None if it was not drawn.
        reason: why it was not drawn; "" if it was.
    """

    name: str
    title: str
    caption: str
    image: File | None = None
    data: File | None = None
    reason: str = ""


@dataclass(frozen=True)
class Grid:
    """A grid of images of one cell.

    Attributes:
        title: what the images are.
        of: cell that they are from.
        image: the file.
    """

    title: str
    of: str
    image: File


@dataclass(frozen=True)
class Grids:
    """Image grids of a run.

    Attributes:
        shown: grids of the first seed of each model, backend, dataset and protocol; inputs once
            per dataset and protocol.
        left_out: number of grids that are left out because of their size.
    """

    shown: tuple[Grid, ...]
    left_out: int


def drawn(run: Run, names: Iterable[str] = ()) -> Iterator[Drawn]:
    """Draw plots; one that fails is yielded with its reason.

    Args:
        run: the run.
        names: names of the plots; all, in the order of the report, if there are none.
    """
    for name, plot in load_plots(names).items():
        try:
            with _rare_collections():
                image = _drawn(name, plot, run)
            yield image
        except NotDrawnError as error:
            yield Drawn(name, plot.title, plot.caption, reason=str(error))


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Collect garbage rarely: while a figure is drawn its tens of thousands of objects are none."""
    usual = gc.get_threshold()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _drawn(name: str, plot: Plot, run: Run) -> Drawn:
    with closing(draw_plot(plot, run)) as drawing:
        image = File(f"{name}.svg", drawing.render("svg"), "image/svg+xml")
        if len(image.content) > LARGE_SVG:
            image = File(f"{name}.png", drawing.render("png"), "image/png")
        return Drawn(name, plot.title, plot.caption, image, _csv(name, drawing.csv()))


def grids(run: Run) -> Grids:
    """Return grids of test images, reconstructions and samples, as the cells saved them."""
    shown: list[Grid] = []
    seen, left_out, room = set(), 0, GRID_BYTES
    for cell in _cells(run):
        data = f"{cell.dataset}, seed {cell.seed}"
        for name, title in GRIDS.items():
            of = f"{cell.model}/{cell.backend} on {data}"
            inputs = (cell.dataset, cell.dataset_fingerprint, cell.protocol)
            path = Path(cell.folder) / IMAGES_FOLDER / f"{name}.png"
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
    """Yield the first seed of each model, backend, dataset and protocol, as named tuples."""
    yield from run.cells.drop_duplicates([*CELL, "protocol_hash"]).itertuples(index=False)


def _csv(name: str, content: bytes) -> File:
    if len(content) <= LARGE_CSV:
        return File(f"{name}.csv", content, "text/csv")
    return File(f"{name}.csv.gz", gzip.compress(content, mtime=0), "application/gzip")
