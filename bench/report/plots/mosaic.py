"""Images laid out in rows with a name each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bench.report.plots.style import FONT_SIZE, GREY, plain, wrapped

LINE_INCHES = 0.14
GAP = 0.08
"""Between tiles, as a share of a tile."""


@dataclass(frozen=True)
class Tile:
    """An image, uint8 ``(C, H, W)`` with one or three channels, and its place."""

    row: int
    column: int
    image: np.ndarray


@dataclass(frozen=True)
class Shape:
    """Rows and columns of a mosaic.

    Attributes:
        names: of the rows, in lines.
        headings: of the columns, in lines.
        tile: side of an image in inches.
        step: from row to row in inches.
    """

    names: list[str]
    headings: list[str]
    tile: float
    step: float

    @classmethod
    def of(cls, tiles: pd.DataFrame, columns: int, name_inches: float, tile: float) -> "Shape":
        """The shape that a table of tiles needs: ``row_name``, ``heading``, ``row``, ``column``."""
        rows = tiles.drop_duplicates("row").sort_values("row")
        names = [wrapped(name, name_inches) for name in rows["row_name"]]
        by_column = tiles.drop_duplicates("column").set_index("column")["heading"]
        headings = [plain(by_column.get(column, "")) for column in range(columns)]
        tallest = max(name.count("\n") + 1 for name in names)
        return cls(names, headings, tile, max(tile * (1 + GAP), LINE_INCHES * tallest + 0.05))

    @property
    def height(self) -> float:
        """In inches, headings included."""
        lines = max(heading.count("\n") + 1 if heading else 0 for heading in self.headings)
        return self.step * len(self.names) + LINE_INCHES * lines


def show(ax: Axes, tiles: Sequence[Tile], shape: Shape) -> None:
    """Draw the tiles as one picture; a place without one says ``n/a``."""
    side = max((max(tile.image.shape[1:]) for tile in tiles), default=1)
    across = side + max(1, round(side * GAP))
    down = round(across * shape.step / (shape.tile * (1 + GAP)))
    rows, columns = len(shape.names), len(shape.headings)
    canvases = np.full((rows, down, columns * across, 3), 255, dtype=np.uint8)
    for tile in tiles:
        image = np.broadcast_to(tile.image, (3, *tile.image.shape[1:])).transpose(1, 2, 0)
        height, width = image.shape[:2]
        top = (down - height) // 2
        left = tile.column * across + (across - width) // 2
        canvases[tile.row, top : top + height, left : left + width] = image
    # Row by row: rendering one picture of a long mosaic takes hundreds of megabytes.
    for row, canvas in enumerate(canvases):
        extent = (0, columns * across, (row + 1) * down, row * down)
        ax.imshow(canvas, interpolation="none", extent=extent)
    ax.set(xlim=(0, columns * across), ylim=(rows * down, 0))
    ax.set_anchor("NW")
    there = {(tile.row, tile.column) for tile in tiles}
    for row in range(rows):
        for column in range(columns):
            if (row, column) not in there:
                x, y = (column + 0.5) * across, (row + 0.5) * down
                ax.text(x, y, "n/a", ha="center", va="center", color=GREY, fontsize=FONT_SIZE)
    ax.set_yticks([(row + 0.5) * down for row in range(rows)], shape.names)
    ax.set_xticks([(column + 0.5) * across for column in range(columns)], shape.headings)
    ax.tick_params(length=0, labelsize=FONT_SIZE, top=False, labeltop=True, labelbottom=False)
    ax.grid(False)
    ax.spines[:].set_visible(False)
