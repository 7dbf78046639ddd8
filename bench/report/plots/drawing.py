"""Load, draw and render plots; a plug-in that fails is reported with its reason."""

import copy
import io
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bench import registry
from bench.errors import BenchError, UnknownNameError, one_line
from bench.report.plots.plot import NotDrawnError, Plot
from bench.report.plots.style import lay_out, suite_style
from bench.report.run_reader import Run

DPI = 200
LARGEST_SIDE = 20_000


@dataclass(frozen=True)
class Drawing:
    """A plot that was drawn.

    Attributes:
        figure: the figure, with its layout computed.
        rows: the rows that it shows, at least one.
    """

    figure: Figure
    rows: pd.DataFrame

    def render(self, file_format: str) -> bytes:
        """Render the figure as the content of a file.

        Args:
            file_format: ``png``, with 200 dots per inch (fewer if a side would exceed 20,000
                pixels), or ``svg``, which keeps text as text.

        Raises:
            NotDrawnError: matplotlib cannot render the figure.
        """
        content = io.BytesIO()
        # The layout is computed: ``Figure.savefig`` would draw the figure twice to compute it.
        with _failures_reported(), suite_style():
            if file_format == "svg":
                FigureCanvasSVG(self.figure).print_svg(content, metadata={"Date": None})
            else:
                self.figure.dpi = min(DPI, LARGEST_SIDE / max(self.figure.get_size_inches()))
                FigureCanvasAgg(self.figure).print_png(content)
        return content.getvalue()

    def csv(self) -> bytes:
        """Return the rows as CSV, without their index."""
        return self.rows.to_csv(index=False).encode()

    def close(self) -> None:
        """Empty the figure, which frees its pixels: tens of megabytes in a figure of a long run.

        Without this, they wait for the garbage collector, as figures are in reference cycles.
        """
        self.figure.clear()


class _UnusablePlot(Plot):
    """A plug-in that cannot be loaded: to draw it gives the reason."""

    caption = ""

    def __init__(self, name: str, reason: str) -> None:
        self.title = name
        self.reason = reason

    def draw(self, run: Run) -> tuple[Figure, pd.DataFrame]:
        raise NotDrawnError(self.reason)


def load_plots(names: Iterable[str] = ()) -> dict[str, Plot]:
    """Load plots by name.

    Args:
        names: registered names; all plots if there are none.

    Returns:
        The plots by name, in the order of ``names`` or of the report. A plug-in that cannot be
        loaded is included: to draw it gives the reason.

    Raises:
        UnknownNameError: no package registers one of the names.
    """
    chosen = list(dict.fromkeys(names))
    for name in chosen:
        if name not in registry.plots:
            raise UnknownNameError("plot", name, registry.plots.names())
    loaded = {name: _load(name) for name in chosen or registry.plots.names()}
    if chosen:
        return loaded
    return dict(sorted(loaded.items(), key=lambda item: (item[1].order, item[0])))


def draw_plot(plot: Plot, run: Run) -> Drawing:
    """Draw a plot in the suite's style; no display is needed.

    Raises:
        NotDrawnError: the run has no rows, the plot has nothing to draw, or its code fails.
        BenchError: the run cannot be read.
    """
    if run.rows.empty:
        raise NotDrawnError("the run has no rows: run it first, with bench run")
    with _failures_reported(plot), suite_style():
        figure, rows = _checked(plot.draw(_with_own_rows(run)))
        lay_out(figure)
    return Drawing(figure, rows)


def _with_own_rows(run: Run) -> Run:
    """Return the run with a copy of its rows, so that a plot that changes them affects no other."""
    own = copy.copy(run)
    own.rows = run.rows.copy()
    return own


def _load(name: str) -> Plot:
    try:
        plot: Plot = registry.plots.load(name)()
    except BenchError as error:
        return _UnusablePlot(name, str(error))
    except Exception as error:
        return _UnusablePlot(name, one_line(error))
    return plot


def _checked(drawn: Any) -> tuple[Figure, pd.DataFrame]:
    """Return what a plot's ``draw`` returned, if it is a figure and its rows."""
    match drawn:
        case (Figure() as figure, pd.DataFrame() as rows):
            if rows.empty:
                raise NotDrawnError("the figure shows no rows")
            return figure, rows
    raise TypeError(f"draw must return (Figure, DataFrame), not {type(drawn).__name__}")


@contextmanager
def _failures_reported(plot: Plot | None = None) -> Iterator[None]:
    """Turn every error into a :class:`NotDrawnError` of one line."""
    try:
        yield
    except BenchError as error:
        raise NotDrawnError(" ".join(str(error).split()).rstrip(".")) from error
    except Exception as error:
        raise NotDrawnError(one_line(error) + _place(error, plot)) from error


def _place(error: Exception, plot: Plot | None) -> str:
    """Return the file and line of the plot's own code that an error passed through, or ""."""
    module = type(plot).__module__
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__") == module:
            return f" ({Path(frame.f_code.co_filename).name}, line {line})"
    return ""
