"""A run directory for notebooks and scripts: its rows, main metrics and plots."""

import os
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from bench.report.page.metric_tables import SETTING, VARIATION, naming_columns
from bench.report.page.write import summary_html
from bench.report.plots.drawing import draw_plot, load_plots
from bench.report.run_reader import Run
from bench.store.aggregation import whole_models
from bench.store.other_neurons import mark_other_neurons
from bench.store.run_directory import load_results
from bench.store.schema import HASHES
from bench.system.formatting import short_hash

HALF_INTERVAL = " ±"


def open_run(path: str | os.PathLike[str]) -> "OpenedRun":
    """Open a run directory, to read its results in a notebook or a script.

    Args:
        path: the run directory.

    Raises:
        BenchError: ``path`` is not a run directory, is damaged, or was written by a newer release.
    """
    return OpenedRun(path)


class OpenedRun:
    """A run directory, as :func:`bench.open` returns it; a notebook shows its main metrics.

    It holds the rows that the directory had when it was opened.

    Attributes:
        rows: all rows, as :func:`bench.load_results` returns them.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.rows = load_results(path)
        self._run = Run(path)
        self._run.rows = mark_other_neurons(self.rows.copy())

    def table(self) -> pd.DataFrame:
        """Return the main metrics, averaged over seeds: a row per model, backend and dataset.

        Cells that differ in protocol, device or content have rows of their own, and columns that
        name the difference.

        Returns:
            The columns ``model``, ``backend``, ``dataset`` and ``seeds``, the number of seeds; then
            for each metric the mean, under its heading in the report, and half of the 95 % interval
            over seeds (Student's t), under the heading followed by ``±``. Missing numbers are NaN;
            :attr:`rows` have the reasons.

        Raises:
            BenchError: ``run.json`` cannot be read.
        """
        main = self._run.headlines("report")
        rows = whole_models(self._run.rows)
        rows = rows[rows["metric"].isin(main)]
        means = self._run.across_seeds(rows)
        means = means.assign(half=(means["ci_high"] - means["ci_low"]) / 2)
        cells = rows.groupby(SETTING, dropna=False, sort=False, observed=True)
        table = cells["seed"].nunique().rename("seeds").reset_index()
        for metric, headline in main.items():
            own = means[means["metric"] == metric]
            if headline.split is not None:
                own = own[own["split"] == headline.split]
            if own.empty:
                continue
            heading = metric if headline.label in table else headline.label
            headings = {"value": heading, "half": heading + HALF_INTERVAL}
            own = own.drop_duplicates(SETTING)[[*SETTING, *headings]].rename(columns=headings)
            table = table.merge(own, on=SETTING, how="left")
        names = naming_columns(rows)
        for name in HASHES:
            if name in names:
                table[name] = table[name].map(short_hash, na_action="ignore")
        unused = [name for name in SETTING if name not in names]
        return table.drop(columns=unused).rename(columns=VARIATION)

    def plot(self, name: str) -> Figure:
        """Draw a plot.

        Args:
            name: registered name, as ``bench plot`` takes it.

        Returns:
            The matplotlib figure, in the suite's style, which a notebook shows.

        Raises:
            UnknownNameError: no package registers the name.
            NotDrawnError: the run has nothing for the plot to draw; the message is the reason.
        """
        (plot,) = load_plots([name]).values()
        drawing = draw_plot(plot, self._run)
        # A notebook shows figures by itself only where pyplot has been used.
        drawing.figure._repr_png_ = partial(drawing.render, "png")  # type: ignore[attr-defined]
        return drawing.figure

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._run.path)!r})"

    def _repr_html_(self) -> str:
        """Return the run's name, facts and main metrics for a notebook."""
        return summary_html(self._run)
