"""Select the rows that a plot shows, group comparable ones and name the groups."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from bench.report.plots.plot import NotDrawnError
from bench.report.query import records
from bench.report.run_reader import Run
from bench.store.aggregation import of_models, whole_models
from bench.store.schema import COMPARABLE_BY, COMPLETE, GENERATED, OK, TIMED_UNIT, View

SEED = "seed"
MEAN = "mean over seeds"
ALWAYS_DESCRIBED = ("dataset_variant", "n")
EXTRACTOR_COLUMNS = ("extractor", "extractor_sha256")
DESCRIPTIONS = {
    "protocol_hash": "{:.8}",
    "dataset_fingerprint": "data {:.8}",
    "train_images": "{} training images",
    "extractor": "{}",
    "extractor_sha256": "weights {:.8}",
    "epoch_selection": "epoch: {}",
    "unit": "in {}",
}
"""Forms of the columns that a context describes if they vary; others are ``NAME VALUE``."""
LONG_PROTOCOL = 40
"""Number of characters from which a protocol's name is shortened in titles."""


def measured_rows(
    run: Run,
    metrics: Sequence[str],
    keep: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """Return the ``ok`` rows of some metrics, sorted.

    Args:
        run: the run.
        metrics: names of the metrics; the first one's rows come first within a protocol.
        keep: returns the rows to keep of the rows given to it; None keeps all.

    Returns:
        At least one row, with three more columns: ``label``, the name of the model in plots, with
        its version if the run has several; ``metric_label``, the name of the metric in plots; and
        ``context``, a text that rows of a metric share exactly if they are comparable: the
        dataset, ``n`` and all else in which the rows differ.

    Raises:
        NotDrawnError: there is no such row; the message is the reason that the run's rows give.
    """
    rows = of_models(run.rows)
    rows = rows[(rows["status"] == OK) & rows["value"].notna() & rows["metric"].isin(metrics)]
    if not rows.empty:
        rows = rows.assign(
            label=model_labels(rows, run),
            context=contexts(rows),
            metric_label=rows["metric"].map(run.label),
        )
        rows = rows if keep is None else keep(rows)
    if rows.empty:
        raise NotDrawnError(_why_unmeasured(run, metrics))
    rows = rows.assign(
        order=rows["metric"].map({name: i for i, name in enumerate(metrics)}),
        generated=rows["split"] == GENERATED,
    )
    by = ["dataset", "protocol", "order", "generated", "context", "label", "backend", "seed"]
    return rows.sort_values(by, kind="stable").drop(columns=["order", "generated"])


def headline_rows(run: Run, view: View) -> pd.DataFrame:
    """Return the rows of the headline metrics that a plot shows, of whole models.

    Args:
        run: the run.
        view: name under which metrics declare that the plot shows them.

    Returns:
        The rows of the split that each metric declares, as :func:`measured_rows` returns them.

    Raises:
        NotDrawnError: there is no such row.
    """
    splits = {name: headline.split for name, headline in run.headlines(view).items()}
    if not splits:
        raise NotDrawnError("the run has no rows of a headline metric")

    def of_splits(rows: pd.DataFrame) -> pd.DataFrame:
        rows = whole_models(rows)
        return rows[rows["split"].fillna("") == rows["metric"].map(splits).fillna("")]

    return measured_rows(run, list(splits), of_splits)


def missing_file(run: Run, file: str, made_by: str) -> NotDrawnError:
    """Return the error for a plot that finds no readable file of a name in any cell.

    Args:
        run: the run, after its cells were searched for the file.
        file: name of the file.
        made_by: when cells have the file, and how to get it.
    """
    damaged = [why for path, why in run.unreadable.items() if path.name == file]
    if damaged:
        more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        return NotDrawnError(f"{damaged[0]}{more}")
    return NotDrawnError(f"no cell's folder has {file}: {made_by}")


def model_labels(cells: pd.DataFrame, run: Run) -> pd.Series:
    """Return the name of each row's model, with its version if the run has several versions."""
    known = run.rows[["model", "model_version"]].drop_duplicates()
    several = known.loc[known["model"].duplicated(keep=False), "model"]
    versioned = cells["model"] + " (version " + cells["model_version"].fillna("unknown") + ")"
    return cells["model"].where(~cells["model"].isin(several), versioned)


def contexts(rows: pd.DataFrame) -> pd.Series:
    """Describe each row's context; rows of a metric share it exactly if they are comparable.

    Args:
        rows: rows of a run, or cells, which lack some of the columns.
    """
    if "unit" in rows:
        # As in the report's warnings: the number of images timed depends on the speed.
        rows = rows.assign(n=rows["n"].mask(rows["unit"] == TIMED_UNIT))
    by = [name for name in ("metric", "dataset") if name in rows]
    compared = [name for name in COMPARABLE_BY if name in rows]
    counts = rows.groupby(by)[compared].nunique(dropna=False)
    varies = counts.max() > 1
    varying = [name for name in compared if varies[name] and name not in ALWAYS_DESCRIBED]
    known = [*by, *compared]
    # Only rows of one model must agree in the hash. Their labels name the version of the model.
    if (rows.groupby([*by, "protocol", "model"])["protocol_hash"].nunique() > 1).any():
        known.append("protocol_hash")
        varying.append("protocol_hash")
    protocols = shorten_protocols(rows["protocol"].unique())
    shared = _without_constant_extractors(varying, counts) if "metric" in rows else {}
    names = rows[known].drop_duplicates()
    described = [
        _describe(row, shared.get(row.get("metric"), varying), protocols) for row in records(names)
    ]
    names = names.assign(context=described)
    return rows[known].merge(names, on=known, how="left")["context"].set_axis(rows.index)


def _without_constant_extractors(
    varying: Sequence[str], counts: pd.DataFrame
) -> dict[Any, list[str]]:
    """Return the columns to describe by metric: the extractor only if the metric's rows differ.

    Args:
        varying: columns in which rows of any metric differ.
        counts: number of different values of each column, by ``metric`` and ``dataset``.
    """
    varies = counts.groupby(level="metric").max() > 1
    return {
        metric: [name for name in varying if name not in EXTRACTOR_COLUMNS or row[name]]
        for metric, row in varies.iterrows()
    }


def shorten_protocols(names: Iterable[str]) -> dict[str, str]:
    """Map each protocol's name to a short one: long names lose the settings that all names share.

    Args:
        names: names of protocols, as ``NAME`` or ``NAME+SETTING=VALUE+...``.

    >>> list(shorten_protocols([f"smoke+epochs={n}+batch_size=16+latent_size=4" for n in (1, 2)]
    ...      ).values())
    ['smoke+epochs=1+…', 'smoke+epochs=2+…']
    """
    parts = {name: name.split("+") for name in names}
    shared = set.intersection(*(set(settings) for _, *settings in parts.values())) if parts else ()
    short = {}
    for name, (base, *settings) in parts.items():
        own = [setting for setting in settings if setting not in shared]
        long = len(name) > LONG_PROTOCOL and len(own) < len(settings)
        short[name] = "+".join([base, *own, "…"]) if long else name
    ambiguous = len(set(short.values())) < len(short)
    return {name: name for name in short} if ambiguous else short


def add_seed_means(rows: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Append the mean over seeds, with its interval, of each observation with several seeds.

    Args:
        rows: rows as :func:`measured_rows` returns them.
        run: the run of the rows.

    Returns:
        The rows and the means. The column ``estimate`` is ``seed`` or ``mean over seeds``,
        ``seeds`` the number of seeds. Seeds that ran on different devices count together.
    """
    singles = rows.assign(estimate=SEED, seeds=1)
    apart = ["n", "extractor_sha256", "label", "context", "metric_label"]
    means = run.across_seeds(rows.drop(columns="device"), apart).assign(estimate=MEAN)
    several = means[means["seeds"] > 1].drop(columns="standard_deviation", errors="ignore")
    return pd.concat([singles, several], ignore_index=True) if len(several) else singles


def best_estimates(data: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return one row per group: the mean over seeds if there is one, else the single seed.

    Args:
        data: rows as :func:`add_seed_means` returns them.
        by: columns that tell the groups apart.
    """
    marked = data.assign(is_mean=data["estimate"] == MEAN)
    best = marked.groupby(by, dropna=False)["is_mean"].transform("max")
    return marked[marked["is_mean"] == best].drop(columns="is_mean")


def groups(data: pd.DataFrame, by: list[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Yield the key and rows of each group, in the order in which the groups first appear."""
    yield from data.groupby(by, dropna=False, sort=False)


def series_names(run: Run) -> tuple[list[str], list[str]]:
    """Return the labels of the run's models, and its backends; their order fixes the styles."""
    rows = of_models(run.rows)
    names = rows[["model", "model_version"]].drop_duplicates()
    return sorted(set(model_labels(names, run))), sorted(set(rows["backend"].dropna()))


def _describe(row: dict[str, Any], varying: list[str], protocols: dict[str, str]) -> str:
    variant = row["dataset_variant"]
    dataset = row["dataset"] if variant in (COMPLETE, None) else f"{row['dataset']} ({variant})"
    parts = [dataset]
    if "n" in row and row["unit"] != TIMED_UNIT:
        parts.append(f"n={'unknown' if pd.isna(row['n']) else row['n']}")
    for name in varying:
        value, words = row[name], name.replace("_", " ")
        if pd.isna(value):
            parts.append(f"no {words}")
        elif name == "protocol":
            parts.append(f"protocol {protocols[value]}")
        else:
            parts.append(DESCRIPTIONS.get(name, f"{words} {{}}").format(value))
    return ", ".join(parts)


def _why_unmeasured(run: Run, metrics: Sequence[str]) -> str:
    """Return the reason that the run's rows give for having no number of any of the metrics."""
    rows = run.rows[run.rows["metric"].isin(metrics)]
    reasons = rows.loc[rows["status"] != "ok", "reason"].dropna().unique()
    names = ", ".join(metrics)
    if not len(reasons):
        return f"the run has no rows of {names}"
    more = f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""
    return f"no row has a number of {names}: {' '.join(reasons[0].split())}{more}"
