"""The contract of a plot."""

from abc import ABC, abstractmethod

import pandas as pd
from matplotlib.figure import Figure

from bench.errors import BenchError
from bench.report.run_reader import Run


class NotDrawnError(BenchError):
    """Raised by a plot that has nothing to draw; the message is the reason, shown to the user."""


class Plot(ABC):
    """A figure of a run, and the rows that it shows.

    A package adds a plot by an entry point of the group ``bench.plots``. The name of the entry
    point is the name that ``bench plot`` takes and that the plot's files have.

    Attributes:
        title: what the plot shows, in a few words.
        caption: what the points, error bars and bands are, in one or two sentences.
        order: position in the report, ascending; plots of the same order are sorted by name.
            Built-in plots have 10 to 110.
    """

    title: str
    caption: str
    order: int = 1000

    @abstractmethod
    def draw(self, run: Run) -> tuple[Figure, pd.DataFrame]:
        """Draw the plot, in the suite's matplotlib style, which the caller has set.

        Args:
            run: a run with at least one row. ``run.rows`` is the table of
                :func:`bench.load_results`; other methods read images, spikes and training curves.

        Returns:
            The figure, and the rows that it shows: they are written as CSV, without their index.

        Raises:
            NotDrawnError: there is nothing to draw.
        """


def check_class(name: str, plot: type[Plot]) -> None:
    """Check the attributes of a plot's class.

    Args:
        name: registered name of the plot.
        plot: its class.

    Raises:
        TypeError: an attribute is missing or of another type; the message names it.
    """
    for attribute, kind in {"title": str, "caption": str, "order": int}.items():
        if not isinstance(getattr(plot, attribute, None), kind):
            raise TypeError(f"{plot.__name__}.{attribute} must be of type {kind.__name__}")
