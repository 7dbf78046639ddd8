"""Which rows share a panel, and how they are called there."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

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
    "extractor": "{}",
    "extractor_sha256": "weights {:.8}",
}


def measured(run: Run, metrics: list[str]) -> pd.DataFrame:
    """The rows with a number of some metrics, without those of a part of the protocol's choice.

    Two columns are added: ``label``, the model as it is called in the plots, with its version
    where the run has several; and ``context``, the comparable rows' common name in their metric,
    which is the dataset, ``n`` and whatever else differs within the run.
    """
    rows = run.rows
    rows = rows[(rows["status"] == "ok") & rows["value"].notna() & rows["metric"].isin(metrics)]
    rows = rows.assign(label=labels(rows, run), context=contexts(rows))
    rows = rows.assign(
        order=rows["metric"].map({name: i for i, name in enumerate(metrics)}),
        generated=rows["split"] == "generated",
    )
    by = ["dataset", "protocol_hash", "order", "generated", "context", "label", "backend", "seed"]
    return rows.sort_values(by, kind="stable").drop(columns=["order", "generated"])


def labels(cells: pd.DataFrame, run: Run) -> pd.Series:
    """Each row's model, with its version where the run has rows of several."""
    known = run.rows[["model", "model_version"]].drop_duplicates()
    several = known.loc[known["model"].duplicated(keep=False), "model"]
    versioned = cells["model"] + " (version " + cells["model_version"].fillna("unknown") + ")"
    return cells["model"].where(~cells["model"].isin(several), versioned)


def contexts(rows: pd.DataFrame) -> pd.Series:
    """Each row's context in words; rows of one metric share it exactly if they are comparable."""
    by = [name for name in ("metric", "dataset") if name in rows]
    known = [name for name in CONTEXT if name in rows]
    differing = rows.groupby(by)[known].nunique(dropna=False).max()
    varying = [name for name in known if differing[name] > 1]
    names = rows[known].drop_duplicates()
    names = names.assign(context=[_describe(row, varying) for row in records(names)])
    return rows[known].merge(names, on=known, how="left")["context"].set_axis(rows.index)


def _describe(row: dict[str, Any], varying: list[str]) -> str:
    variant = row["dataset_variant"]
    dataset = row["dataset"] if variant in ("complete", None) else f"{row['dataset']} ({variant})"
    parts = [dataset]
    if "n" in row:
        parts.append(f"n={'unknown' if pd.isna(row['n']) else row['n']}")
    if "protocol_hash" in varying:
        parts.append(f"protocol {row['protocol']}")
    for name, form in DESCRIBED.items():
        if name in varying:
            known = not pd.isna(row[name])
            parts.append(form.format(row[name]) if known else f"no {name.replace('_', ' ')}")
    return ", ".join(parts)


def with_means(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, and below them what the seeds say together where there are several.

    ``estimate`` tells the two apart, ``seeds`` how many. Seeds that ran on different devices are
    taken together.
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


def drawn(data: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The rows that an interval is drawn for: the mean over seeds, else the single seed."""
    shown = data.assign(is_mean=data["estimate"] == MEAN)
    best = shown.groupby(by, dropna=False)["is_mean"].transform("max")
    return shown[shown["is_mean"] == best].drop(columns="is_mean")


def panels(data: pd.DataFrame, by: list[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The groups of the data in the order in which they first appear."""
    yield from data.groupby(by, dropna=False, sort=False)


def records(data: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in data.to_dict("records")]


def names_of(run: Run) -> tuple[list[str], list[str]]:
    """Labels of all the run's models, and its backends: their order fixes colours and markers."""
    return sorted(set(labels(run.rows, run))), sorted(set(run.rows["backend"].dropna()))
