"""What a plot is."""

import gc
from abc import ABC, abstractmethod
from typing import ClassVar

import pandas as pd
from matplotlib.figure import Figure

from bench.report.plots.style import lay_out, style
from bench.report.run_reader import Run


class Plot(ABC):
    """One figure of a run, and the data behind it."""

    name: ClassVar[str]
    """Its name: what ``bench plot`` takes and its files are called."""
    title: ClassVar[str]
    """What it shows, in a few words."""
    caption: ClassVar[str]
    """What is shown, and what its error bars are, in a sentence or two."""

    @abstractmethod
    def data(self, run: Run) -> pd.DataFrame:
        """The data behind the plot, tidy; empty if there is nothing to draw."""

    @abstractmethod
    def reason(self, run: Run) -> str:
        """Why there is nothing to draw, and the way out."""

    @abstractmethod
    def figure(self, data: pd.DataFrame, run: Run) -> Figure:
        """Build the figure from data that is not empty; the suite's style is set."""

    def missing(self, run: Run) -> str | None:
        """Why the plot cannot be drawn, in one line; None if it can."""
        return self.why(self.data(run), run)

    def why(self, data: pd.DataFrame, run: Run) -> str | None:
        """As :meth:`missing`, from the plot's data."""
        if not data.empty:
            return None
        if run.rows.empty:
            return "the run has no rows: run it first, with bench run"
        return self.reason(run)

    def draw(self, data: pd.DataFrame, run: Run) -> Figure:
        """Draw data that is not empty, in the suite's style, without any display."""
        # Figures hold themselves in cycles, and long ones their tens of megabytes of pixels.
        gc.collect()
        with style():
            figure = self.figure(data, run)
            lay_out(figure)
            return figure


def unmeasured(run: Run, metrics: list[str]) -> str:
    """Why no row has a number of any of these metrics, in the words of the rows."""
    rows = run.rows[run.rows["metric"].isin(metrics)]
    reasons = rows.loc[rows["status"] != "ok", "reason"].dropna().unique()
    names = ", ".join(metrics)
    if not len(reasons):
        return f"the run has no rows of {names}"
    more = f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""
    return f"no row has a number of {names}: {' '.join(reasons[0].split())}{more}"


def without_file(run: Run, file: str, made_by: str) -> str:
    """Why no cell has a readable file of that name, and the way out."""
    damaged = [why for path, why in run.unreadable.items() if path.name == file]
    if damaged:
        more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        return f"{damaged[0]}{more}"
    return f"no cell's folder has {file}: {made_by}"
