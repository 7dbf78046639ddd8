"""How all plots look: palette, markers, type, names and legends."""

import io
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

WIDTH = 7.2
"""Printed width of a figure in inches: two columns of a paper."""
FONT_SIZE = 8
CHARACTERS_PER_INCH = 14.5
DPI = 200
LARGEST_SIDE = 20_000
GREY = "#6e6e6e"
HIGHER = "higher is better \u2191"
LOWER = "lower is better \u2193"

# Okabe and Ito (2008) without yellow, which is faint in print, and green, a pair to vermilion.
COLOURS = ("#0072B2", "#E69F00", "#000000", "#CC79A7", "#56B4E9", "#D55E00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", "p", ">", "h")
DASHES = ((1, 0), (4, 1.5), (1, 1), (5, 1, 1, 1), (8, 2), (2, 2, 1, 2))
FILLS = ("full", "none", "left", "top", "right", "bottom")

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": FONT_SIZE,
    "axes.titlesize": FONT_SIZE,
    "axes.labelsize": FONT_SIZE,
    "xtick.labelsize": FONT_SIZE,
    "ytick.labelsize": FONT_SIZE,
    "legend.fontsize": FONT_SIZE,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "axes.formatter.limits": (-3, 4),
    "axes.formatter.use_mathtext": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "spikegen-bench",
}


@dataclass(frozen=True)
class Look:
    """Colour and second cues of one name."""

    colour: str
    marker: str
    dashes: tuple[float, ...]
    fill: Any

    @property
    def linestyle(self) -> Any:
        """The dashes as matplotlib takes them."""
        return "-" if self.dashes[1] == 0 else (0, self.dashes)


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name; twelve names differ in marker, six in everything."""
    return {
        name: Look(
            COLOURS[i % len(COLOURS)],
            MARKERS[i % len(MARKERS)],
            DASHES[i % len(DASHES)],
            FILLS[i % len(FILLS)],
        )
        for i, name in enumerate(names)
    }


def style() -> AbstractContextManager[None]:
    """The suite's matplotlib settings, for the length of a ``with`` block."""
    return mpl.rc_context(_STYLE)


def lay_out(figure: Figure) -> None:
    """Place everything once, and not at each rendering again."""
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.execute(figure)
    figure.set_layout_engine("none")


def render(figure: Figure, file_format: str) -> bytes:
    """A figure as a file's content.

    Args:
        figure: as :meth:`Plot.draw` returns it.
        file_format: ``png``, at 200 dots an inch (fewer where a side would pass 20,000 pixels), or
            ``svg``, whose text stays text.
    """
    dpi = min(DPI, LARGEST_SIDE / max(figure.get_size_inches()))
    content = io.BytesIO()
    metadata = {"Date": None} if file_format == "svg" else None
    with style():
        figure.savefig(content, format=file_format, dpi=dpi, metadata=metadata)
    return content.getvalue()


def plain(text: str) -> str:
    r"""A name that matplotlib prints as it is: ``$`` starts no formula, no odd characters.

    Line breaks and other characters that cannot be printed become ``\ufffd``.
    """
    printable = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
    return printable.replace("$", r"\$")


def wrapped(text: str, inches: float) -> str:
    """A name, safe to print, broken into lines that fit a width; after ``_``, ``+``, ``.`` too."""
    columns = max(8, int(inches * CHARACTERS_PER_INCH))
    return plain("\n".join(line for part in text.split("\n") for line in _lines(part, columns)))


def _lines(text: str, columns: int) -> list[str]:
    lines = [""]
    for part in re.findall(r"[^ _+./,-]*[ _+./,-]|[^ _+./,-]+", text):
        for start in range(0, len(part), columns):
            piece = part[start : start + columns]
            if len(lines[-1] + piece.rstrip()) > columns:
                lines.append("")
            lines[-1] += piece
    return [line.strip() for line in lines]


def axis_label(row: pd.Series, inches: float) -> str:
    """A row's metric with its unit and direction, in lines that fit a width."""
    named = row["metric"].replace("_", " ")
    said = [] if row["unit"] in ("1", None) or pd.isna(row["unit"]) else [row["unit"]]
    if not pd.isna(row["higher_is_better"]):
        said.append(
            "higher is better \u2191" if row["higher_is_better"] else "lower is better \u2193"
        )
    return wrapped(f"{named}\n{', '.join(said)}" if said else named, inches)


def grid(
    rows: int, columns: int, heights: Sequence[float], legend: float = 0.5, **options: Any
) -> tuple[Figure, Any]:
    """A figure of the printed width, and its axes as an array ``(rows, columns)``.

    Args:
        rows: of panels.
        columns: of panels.
        heights: of the rows, in inches.
        legend: room for a legend below, in inches.
        options: of ``Figure.subplots``.
    """
    figure = Figure(figsize=(WIDTH, sum(heights) + legend))
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, wspace=0.02, hspace=0.02)
    figure.set_layout_engine(layout)
    axes = figure.subplots(rows, columns, squeeze=False, height_ratios=list(heights), **options)
    return figure, axes


def entry(look: Look, **changes: Any) -> Line2D:
    """What a legend shows of a look; ``changes`` are properties of the line."""
    properties: dict[str, Any] = {
        "color": look.colour,
        "marker": look.marker,
        "linestyle": "none",
        **changes,
    }
    return Line2D([], [], **properties)


def legend(figure: Figure, entries: Sequence[tuple[Artist, str]]) -> None:
    """A legend below the axes, in as many columns as the longest name leaves room for."""
    names = [wrapped(name, 3.0) for _, name in entries]
    longest = max(len(line) for name in names for line in name.splitlines())
    columns = int(WIDTH / (longest / CHARACTERS_PER_INCH + 0.45))
    shown = figure.legend(
        [handle for handle, _ in entries],
        [str(i) for i in range(len(entries))],
        loc="outside lower center",
        ncols=max(1, min(columns, len(entries))),
        handlelength=2.6,
        columnspacing=1.2,
        borderaxespad=0,
    )
    # Set afterwards: matplotlib leaves out labels that start with an underscore.
    for text, name in zip(shown.get_texts(), names, strict=True):
        text.set_text(name)


def legend_height(names: Sequence[str]) -> float:
    """Room in inches that :func:`legend` takes for these names."""
    lines = [wrapped(name, 3.0).splitlines() for name in names]
    longest = max(len(line) for name in lines for line in name)
    columns = max(1, int(WIDTH / (longest / CHARACTERS_PER_INCH + 0.45)))
    tallest = max(len(name) for name in lines)
    return 0.15 + 0.14 * tallest * -(-len(names) // columns)


def blank(axes: Iterable[Axes]) -> None:
    """Hide panels that hold nothing."""
    for ax in axes:
        ax.set_axis_off()


def log_if_wide(ax: Axes, values: pd.Series, axis: Literal["x", "y"]) -> None:
    """A logarithmic axis where positive values span more than a factor of 30, else few ticks."""
    if values.min() > 0 and values.max() > 30 * values.min():
        getattr(ax, f"set_{axis}scale")("log")
    else:
        ax.locator_params(axis=axis, nbins=4 if axis == "x" else 6)
