"""Mosaics: rows of images, with a name per row and a heading per column."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bench.report.plots.style import (
    FONT_SIZE,
    GREY,
    LINE_INCHES,
    escape_text,
    text_height,
    wrap_text,
)

GAP = 0.08
"""Distance between tiles, as a fraction of a tile's side."""


@dataclass(frozen=True)
class Tile:
    """An image and its place in a mosaic.

    Attributes:
        row: row, counted from 0 at the top.
        column: column, counted from 0 at the left.
        image: uint8 array of shape (C, H, W), with one or three channels.
        text: text below the image.
    """

    row: int
    column: int
    image: np.ndarray
    text: str = ""


@dataclass(frozen=True)
class MosaicLayout:
    """Names and sizes of a mosaic's rows and columns.

    Attributes:
        names: name of each row, with line breaks.
        headings: heading of each column, with line breaks.
        tile: side of a tile in inches.
        step: distance from row to row in inches.
    """

    names: list[str]
    headings: list[str]
    tile: float
    step: float

    @classmethod
    def of_tiles(
        cls, tiles: pd.DataFrame, columns: int, name_inches: float, tile: float
    ) -> "MosaicLayout":
        """Compute the layout of a table of tiles.

        Args:
            tiles: one row per tile, with ``row``, ``column``, ``row_name``, ``heading`` and
                ``text``.
            columns: number of columns.
            name_inches: width of the row names in inches.
            tile: side of a tile in inches.
        """
        rows = tiles.drop_duplicates("row").sort_values("row")
        names = [wrap_text(name, name_inches) for name in rows["row_name"]]
        by_column = tiles.drop_duplicates("column").set_index("column")["heading"]
        headings = [escape_text(by_column.get(column, "")) for column in range(columns)]
        # The image is in the middle of its place, so that there is as much room above it.
        texts = 2 * LINE_INCHES if tiles["text"].notna().any() else 0
        step = max(tile * (1 + GAP) + texts, text_height(names) + 0.05)
        return cls(names, headings, tile, step)

    @property
    def height(self) -> float:
        """Height in inches, headings included."""
        return self.step * len(self.names) + text_height(filter(None, self.headings))


def draw_mosaic(ax: Axes, tiles: Sequence[Tile], layout: MosaicLayout) -> None:
    """Draw the tiles in one panel; an empty place says ``n/a``.

    Args:
        ax: the panel.
        tiles: the images.
        layout: names and sizes of rows and columns.
    """
    side = max((max(tile.image.shape[1:]) for tile in tiles), default=1)
    across = side + max(1, round(side * GAP))
    down = round(across * layout.step / (layout.tile * (1 + GAP)))
    rows, columns = len(layout.names), len(layout.headings)
    # Row by row: rendering a long mosaic as one picture takes hundreds of megabytes.
    for row, canvas in enumerate(_canvases(tiles, (rows, columns), (down, across))):
        extent = (0, columns * across, (row + 1) * down, row * down)
        ax.imshow(canvas, interpolation="none", extent=extent)
    filled = {(tile.row, tile.column) for tile in tiles}
    for row in range(rows):
        for column in range(columns):
            if (row, column) not in filled:
                x, y = (column + 0.5) * across, (row + 0.5) * down
                ax.text(x, y, "n/a", ha="center", va="center", color=GREY, fontsize=FONT_SIZE)
    for tile in filter(lambda tile: tile.text, tiles):
        x, y = tile.column * across + side / 2, (tile.row + 1) * down
        ax.text(x, y, tile.text, ha="center", va="bottom", color=GREY, fontsize=FONT_SIZE)
    ax.set(xlim=(0, columns * across), ylim=(rows * down, 0))
    ax.set_anchor("NW")
    ax.set_yticks([(row + 0.5) * down for row in range(rows)], layout.names)
    ax.set_xticks([(column + 0.5) * across for column in range(columns)], layout.headings)
    ax.tick_params(length=0, labelsize=FONT_SIZE, top=False, labeltop=True, labelbottom=False)
    ax.grid(False)
    ax.spines[:].set_visible(False)


def _canvases(tiles: Sequence[Tile], shape: tuple[int, int], place: tuple[int, int]) -> np.ndarray:
    """Return a white picture per row with its tiles, uint8 of shape (rows, H, columns * W, 3).

    Args:
        tiles: the images.
        shape: number of rows and columns.
        place: height H and width W of a tile's place in pixels.
    """
    (rows, columns), (down, across) = shape, place
    canvases = np.full((rows, down, columns * across, 3), 255, dtype=np.uint8)
    for tile in tiles:
        image = np.broadcast_to(tile.image, (3, *tile.image.shape[1:])).transpose(1, 2, 0)
        height, width = image.shape[:2]
        top = (down - height) // 2
        left = tile.column * across + (across - width) // 2
        canvases[tile.row, top : top + height, left : left + width] = image
    return canvases
