"""Values across, with a small point a seed and a large one with its interval."""

from collections.abc import Mapping

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from bench.report.plots.plot_data import SEED, drawn, records
from bench.report.plots.style import Look


def dots(
    ax: Axes, rows: pd.DataFrame, by: list[str], styles: Mapping[str, Look], size: float
) -> None:
    """Draw the rows at their column ``at``, in the colour and marker of their backend.

    Args:
        ax: to draw into.
        rows: as :func:`with_means` gives them.
        by: what tells one large point from the next.
        styles: by backend.
        size: of the large points' markers.
    """
    there = sorted(rows["backend"].unique())
    sns.scatterplot(
        rows[rows["estimate"] == SEED], x="value", y="at", hue="backend", style="backend", ax=ax,
        palette={name: styles[name].colour for name in there},
        markers={name: styles[name].marker for name in there},
        legend=False, s=size * 2, alpha=0.55, linewidth=0,
    )  # fmt: skip
    for row in records(drawn(rows, by)):
        look = styles[row["backend"]]
        ends = [row["ci_low"], row["ci_high"]]
        ax.plot(ends, [row["at"]] * 2, color=look.colour, linewidth=size / 4.4)
        ax.plot(
            row["value"], row["at"], color=look.colour, marker=look.marker, markersize=size,
            markeredgecolor="white", markeredgewidth=0.4,
        )  # fmt: skip
    ax.set_ylabel("")
