"""Dots with intervals: values across, a large dot per estimate, and a small one per seed."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes

from bench.report.plots.plot_data import MEAN, SEED, best_estimates
from bench.report.plots.style import SeriesStyle


def draw_dots(
    ax: Axes, rows: pd.DataFrame, by: list[str], styles: Mapping[str, SeriesStyle], size: float
) -> None:
    """Draw the rows at the heights in their column ``at``, in the style of their backend.

    Seeds have dots of their own where there are means over several of them.

    Args:
        ax: the panel.
        rows: rows as :func:`add_seed_means` returns them, with the column ``at``.
        by: columns that tell the large dots apart.
        styles: style by backend.
        size: size of the large dots in points.
    """
    if (rows["estimate"] == MEAN).any():
        _draw_seeds(ax, rows[rows["estimate"] == SEED], styles, size)
    for backend, part in best_estimates(rows, by).groupby("backend"):
        style = styles[str(backend)]
        known = part.dropna(subset=["ci_low", "ci_high"])
        ax.hlines(
            known["at"], known["ci_low"], known["ci_high"], colors=style.colour,
            linewidth=size / 4.4,
        )  # fmt: skip
        ax.plot(
            part["value"], part["at"], color=style.colour, marker=style.marker, linestyle="none",
            markersize=size, markeredgecolor="white", markeredgewidth=0.4,
        )  # fmt: skip


def _draw_seeds(
    ax: Axes, rows: pd.DataFrame, styles: Mapping[str, SeriesStyle], size: float
) -> None:
    """Draw a small, pale dot for each row."""
    # Only runs of several seeds wait for this import, which takes a second.
    import seaborn as sns

    backends = sorted(rows["backend"].unique())
    # Where an axis has no label, seaborn makes all of its ticks to see whether they are visible.
    ax.set(xlabel=" ", ylabel=" ")
    sns.scatterplot(
        rows, x="value", y="at", hue="backend", style="backend", ax=ax,
        palette={name: styles[name].colour for name in backends},
        markers={name: styles[name].marker for name in backends},
        legend=False, s=size * 2, alpha=0.55, linewidth=0,
    )  # fmt: skip
    ax.set(xlabel="", ylabel="")
