"""Select the rows that a plot shows, group comparable ones and name the groups."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from bench.report.plots.plot import NotDrawnError
from bench.report.run_reader import Run
from bench.store.aggregation import across_seeds

CONTEXT = [
    "dataset",
    "dataset_variant",
    "dataset_fingerprint",
    "train_images",
    "protocol",
    "protocol_hash",
    "epoch_selection",
    "metric_version",
    "n",
    "extractor",
    "extractor_sha256",
]
"""What rows must agree in to be comparable."""
SEED = "seed"
MEAN = "mean over seeds"
DESCRIBED = {
    "dataset_fingerprint": "data {:.8}",
    "train_images": "{} training images",
    "protocol_hash": "{:.8}",
    "epoch_selection": "epoch: {}",
    "metric_version": "metric version {}",
    "extractor": "{}",
    "extractor_sha256": "weights {:.8}",
}
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
        At least one row, with two more columns: ``label``, the name of the model in plots, with its
        version if the run has several; and ``context``, a text that rows of a metric share exactly
        if they are comparable: the dataset, ``n`` and all else in which the rows differ.

    Raises:
        NotDrawnError: there is no such row; the message is the reason that the run's rows give.
    """
    rows = run.rows
    rows = rows[(rows["status"] == "ok") & rows["value"].notna() & rows["metric"].isin(metrics)]
    rows = rows.assign(label=model_labels(rows, run), context=contexts(rows))
    rows = rows if keep is None else keep(rows)
    if rows.empty:
        raise NotDrawnError(_why_unmeasured(run, metrics))
    rows = rows.assign(
        order=rows["metric"].map({name: i for i, name in enumerate(metrics)}),
        generated=rows["split"] == "generated",
    )
    by = ["dataset", "protocol", "order", "generated", "context", "label", "backend", "seed"]
    return rows.sort_values(by, kind="stable").drop(columns=["order", "generated"])


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
    """Describe each row's context; rows of a metric share it exactly if they are comparable."""
    by = [name for name in ("metric", "dataset") if name in rows]
    known = [name for name in CONTEXT if name in rows]
    differing = rows.groupby(by)[known].nunique(dropna=False).max()
    # One protocol can state other values for each model.
    per_model = rows.groupby([*by, "model", "protocol"])["protocol_hash"]
    differing["protocol_hash"] = per_model.nunique().max()
    varying = [name for name in known if differing[name] > 1]
    known = [name for name in known if name != "protocol_hash" or name in varying]
    names = rows[known].drop_duplicates()
    short = shorten_protocols(names["protocol"])
    names = names.assign(context=[_describe(row, varying, short) for row in records(names)])
    return rows[known].merge(names, on=known, how="left")["context"].set_axis(rows.index)


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
    return short


def add_seed_means(rows: pd.DataFrame) -> pd.DataFrame:
    """Append the mean over seeds, with its interval, of each observation with several seeds.

    Args:
        rows: rows as :func:`measured_rows` returns them.

    Returns:
        The rows and the means. The column ``estimate`` is ``seed`` or ``mean over seeds``,
        ``seeds`` the number of seeds. Seeds that ran on different devices count together.
    """
    singles = rows.assign(estimate=SEED, seeds=1)
    together = []
    distinct = ["n", "extractor_sha256", "label", "context"]
    for key, group in rows.drop(columns="device").groupby(distinct, dropna=False, sort=False):
        means = across_seeds(group)
        known: Any = dict(zip(distinct, key, strict=True))
        together.append(means.assign(estimate=MEAN, **known))
    means = pd.concat(together) if together else singles.iloc[:0]
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


def records(data: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in data.to_dict("records")]


def series_names(run: Run) -> tuple[list[str], list[str]]:
    """Return the labels of the run's models, and its backends; their order fixes the styles."""
    return sorted(set(model_labels(run.rows, run))), sorted(set(run.rows["backend"].dropna()))


def _describe(row: dict[str, Any], varying: list[str], protocols: dict[str, str]) -> str:
    variant = row["dataset_variant"]
    dataset = row["dataset"] if variant in ("complete", None) else f"{row['dataset']} ({variant})"
    parts = [dataset]
    if "n" in row:
        parts.append(f"n={'unknown' if pd.isna(row['n']) else row['n']}")
    if "protocol" in varying:
        parts.append(f"protocol {protocols[row['protocol']]}")
    for name, form in DESCRIBED.items():
        if name in varying:
            known = not pd.isna(row[name])
            parts.append(form.format(row[name]) if known else f"no {name.replace('_', ' ')}")
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
