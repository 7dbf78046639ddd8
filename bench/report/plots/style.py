"""The style that all plots share: palette, markers, fonts, wrapped text, panels and legends."""

import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter

from bench.store.other_neurons import IN_SHORT, is_marked
from bench.system.formatting import readable_scale

WIDTH = 7.2
"""Printed width of a figure in inches: two columns of a paper."""
FONT_SIZE = 8
LINE_INCHES = 0.14
"""Height of a line of text."""
CHARACTERS_PER_INCH = 14.5
GREY = "#6e6e6e"
HIGHER = "higher is better \u2191"
LOWER = "lower is better \u2193"

# Okabe and Ito (2008) without yellow, which is faint in print, and without green, which is hard to
# tell from vermilion.
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
    "axes.prop_cycle": f"cycler(color={list(COLOURS)})",
    "figure.figsize": (WIDTH, 3.0),
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "spikegen-bench",
}


@dataclass(frozen=True)
class SeriesStyle:
    """Colour, marker, dashes and fill of one model or backend.

    Attributes:
        colour: a matplotlib colour.
        marker: a matplotlib marker.
        dashes: lengths of dash and gap in line widths, in turn.
        fill: fill style of the marker.
    """

    colour: str
    marker: str
    dashes: tuple[float, ...]
    fill: Any

    @property
    def linestyle(self) -> Any:
        """The dashes as a matplotlib line style."""
        return "-" if self.dashes[1] == 0 else (0, self.dashes)


def series_styles(names: Iterable[str]) -> dict[str, SeriesStyle]:
    """Return a style for each name; twelve names differ in marker, six in all properties."""
    return {
        name: SeriesStyle(
            COLOURS[i % len(COLOURS)],
            MARKERS[i % len(MARKERS)],
            DASHES[i % len(DASHES)],
            FILLS[i % len(FILLS)],
        )
        for i, name in enumerate(names)
    }


def suite_style() -> AbstractContextManager[None]:
    """Return a context in which matplotlib has the suite's settings."""
    return mpl.rc_context(_STYLE)


def lay_out(figure: Figure) -> None:
    """Compute the layout once, so that rendering does not compute it again."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def escape_text(text: str) -> str:
    r"""Return text that matplotlib prints literally.

    ``$`` starts no formula, and characters that cannot be printed become ``\ufffd``.

    >>> print(escape_text("cost in $"))
    cost in \$
    """
    printable = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
    return printable.replace("$", r"\$")


def wrap_text(text: str, inches: float) -> str:
    """Return escaped text with line breaks, so that it fits a width.

    Lines break after spaces, ``_``, ``+``, ``.``, ``/``, ``,`` and ``-``.

    >>> print(wrap_text("reconstruction_loss_by_time_step", 1.1))
    reconstruction_
    loss_by_time_
    step
    """
    columns = max(8, int(inches * CHARACTERS_PER_INCH))
    lines = [line for part in text.split("\n") for line in _lines(part, columns)]
    return escape_text("\n".join(lines))


def _lines(text: str, columns: int) -> list[str]:
    lines = [""]
    for part in re.findall(r"[^ _+./,-]*[ _+./,-]|[^ _+./,-]+", text):
        for start in range(0, len(part), columns):
            piece = part[start : start + columns]
            if len(lines[-1] + piece.rstrip()) > columns:
                lines.append("")
            lines[-1] += piece
    return [line.strip() for line in lines]


def text_height(texts: Iterable[str]) -> float:
    """Return the height in inches of the tallest of some texts; 0 if there are none.

    >>> text_height(["one line", "two\\nlines"])
    0.28
    """
    return LINE_INCHES * max((text.count("\n") + 1 for text in texts), default=0)


def label_axis(axis: Axis, row: pd.Series, values: Iterable[float], inches: float) -> None:
    """Label an axis with a metric, its direction, and a unit in which the ticks are short numbers.

    Args:
        axis: the axis.
        row: a row of the metric, with its label, unit and direction.
        values: the values that the axis shows.
        inches: width that the label must fit, with line breaks.
    """
    unit = "1" if pd.isna(row["unit"]) else row["unit"]
    scale = readable_scale(unit, values)
    details = [scale.unit] if scale.unit else []
    if not pd.isna(row["higher_is_better"]):
        details.append(HIGHER if row["higher_is_better"] else LOWER)
    label = row["metric_label"]
    if details:
        label += f"\n{', '.join(details)}"
    axis.set_label_text(wrap_text(label, inches))
    if axis.get_scale() == "log":
        _label_log_ticks(axis, scale.factor)
    elif scale.factor != 1:
        axis.set_major_formatter(lambda value, _: f"{value * scale.factor:g}")


def panel_grid(
    columns: int, heights: Sequence[float], legend_inches: float = 0.5, **options: Any
) -> tuple[Figure, Any]:
    """Make a figure of the printed width with a grid of panels.

    Args:
        columns: number of panels in a row.
        heights: height of each row in inches, titles and labels included.
        legend_inches: height reserved above the panels for a legend.
        options: keyword arguments of ``Figure.subplots``.

    Returns:
        The figure, and its axes as an array of shape (rows, columns).
    """
    figure = Figure(figsize=(WIDTH, sum(heights) + legend_inches))
    layout = ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, wspace=0.02, hspace=0.02)
    figure.set_layout_engine(layout)
    axes = figure.subplots(
        len(heights), columns, squeeze=False, height_ratios=list(heights), **options
    )
    return figure, axes


def set_row_title(ax: Axes, row_title: str, title: str = "") -> None:
    """Set the title of a row of panels, above the title of its first panel.

    The row's title can be wider than the panel: the layout reserves its height, not its width.

    Args:
        ax: first panel of the row.
        row_title: title of the row, escaped, with line breaks.
        title: title of the panel, escaped, with line breaks.
    """
    own = title.splitlines()
    reserved = [" "] * len(row_title.splitlines())
    shown = ax.set_title("\n".join([*reserved, *own]), loc="left")
    # Matplotlib moves the title up where the axis has a power of ten: both move together.
    ax.annotate(
        "\n".join([row_title, *" " * len(own)]), (0, 1), xycoords=shown, va="top",
        fontproperties=shown.get_fontproperties(), in_layout=False,
    )  # fmt: skip


def legend_handle(style: SeriesStyle, **changes: Any) -> Line2D:
    """Return a legend's marker for a style; ``changes`` are properties of the line."""
    properties: dict[str, Any] = {
        "color": style.colour,
        "marker": style.marker,
        "linestyle": "none",
        **changes,
    }
    return Line2D([], [], **properties)


def add_legend(figure: Figure, entries: Sequence[tuple[Artist, str]]) -> None:
    """Put a legend above the axes, in as many columns as the longest name leaves room for."""
    entries = [*entries, *_notes(name for _, name in entries)]
    names = [wrap_text(name, 3.0) for _, name in entries]
    shown = figure.legend(
        [handle for handle, _ in entries],
        [str(i) for i in range(len(entries))],
        loc="outside upper center",
        ncols=min(_legend_columns(names), len(entries)),
        handlelength=2.6,
        columnspacing=1.2,
        borderaxespad=0,
    )
    # Set afterwards: matplotlib leaves out labels that start with an underscore.
    for text, name in zip(shown.get_texts(), names, strict=True):
        text.set_text(name)


def legend_height(names: Sequence[str]) -> float:
    """Return the height in inches that :func:`add_legend` takes for these names."""
    names = [*names, *(note for _, note in _notes(names))]
    wrapped = [wrap_text(name, 3.0) for name in names]
    return 0.15 + text_height(wrapped) * -(-len(names) // _legend_columns(wrapped))


def _notes(names: Iterable[str]) -> list[tuple[Artist, str]]:
    """Return an entry without a line that explains the mark of a backend, if a name has it."""
    return [(Line2D([], [], linestyle="none"), IN_SHORT)] if any(map(is_marked, names)) else []


def _legend_columns(names: Sequence[str]) -> int:
    longest = max(len(line) for name in names for line in name.splitlines())
    return max(1, int(WIDTH / (longest / CHARACTERS_PER_INCH + 0.45)))


def hide_panels(axes: Iterable[Axes]) -> None:
    """Hide panels that show nothing."""
    for ax in axes:
        ax.set_axis_off()


def log_if_wide(ax: Axes, values: pd.Series, axis: Literal["x", "y"]) -> None:
    """Make an axis logarithmic if its values span more than a factor of 10, else limit its ticks.

    Args:
        ax: the panel.
        values: the values that the axis shows; an axis with values of 0 or less stays linear.
        axis: ``x`` or ``y``.
    """
    if values.min() > 0 and values.max() > 10 * values.min():
        getattr(ax, f"set_{axis}scale")("log")
        _label_log_ticks(ax.xaxis if axis == "x" else ax.yaxis, 1.0)
    else:
        ax.locator_params(axis=axis, nbins=4 if axis == "x" else 6)


class _LogTicks(LogFormatter):
    """Labels of the ticks that matplotlib labels on a logarithmic axis, without powers of ten."""

    def __init__(self, factor: float) -> None:
        # Ticks between powers of ten have labels if the axis shows one power of ten. Matplotlib
        # before 3.11 counts decades: there they have labels if it spans less than two.
        super().__init__(minor_thresholds=(1.99, 0.4))
        self.factor = factor

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x * self.factor:.12g}" if super().__call__(x, pos) else ""


def _label_log_ticks(axis: Axis, factor: float) -> None:
    """Label the ticks of a logarithmic axis with values times a factor."""
    axis.set_major_formatter(_LogTicks(factor))
    axis.set_minor_formatter(_LogTicks(factor))
