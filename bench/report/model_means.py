"""Numbers of models: averaged over backends and over seeds, and in units that suit them."""

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import pandas as pd

from bench.report.run_reader import Run
from bench.store.schema import OBSERVATION, OK
from bench.system.formatting import short_hash

SETTING = ["dataset", "protocol", "dataset_variant", "dataset_fingerprint", "device"]
"""Columns whose values a table of models has in common."""
VARIES_WITHIN_MODEL = ["protocol_hash", "model_version", "train_images"]
_FOLDED = [name for name in OBSERVATION if name not in ("backend", "device")]
_ENDS = ["ci_low", "ci_high"]


def model_names(
    rows: pd.DataFrame, columns: Iterable[str] = VARIES_WITHIN_MODEL
) -> "pd.Series[str]":
    """Return the name of each row's model, with what tells it apart from others of the same name.

    Args:
        rows: rows of one setting.
        columns: columns that tell models of the same name apart where they differ.
    """
    names = rows["model"].astype(str)
    for column in columns:
        # A row without a number can lack what the other rows of its cell have.
        values = rows[column].fillna(rows.groupby("cell_key")[column].transform("first"))
        if (values.groupby(rows["model"]).nunique() > 1).any():
            names += values.map(lambda v, c=column: "" if pd.isna(v) else f", {_variation(c, v)}")
    return names


def equal_backends(rows: pd.DataFrame, run: Run) -> dict[str, list[list[str]]]:
    """Return the backends of each model, in groups whose numbers are all the same.

    Metrics of the machine do not count.

    Args:
        rows: rows of one setting, with a column ``name`` of the model.
        run: the run of the rows.
    """
    machine = {name for name, each in run.declarations.items() if not each.reproducible}
    compared = rows[~rows["metric"].isin(machine)]
    keys = [*(name for name in _FOLDED if name != "model"), "seed"]
    compared = compared[["name", "backend", "value", *keys]]
    groups = {}
    for name, own in compared.groupby("name", sort=False):
        numbers = {
            str(backend): tuple(part.sort_values(keys)["value"].fillna(float("inf")))
            for backend, part in own.groupby("backend", sort=False)
        }
        in_order = sorted(numbers, key=lambda backend: numbers[backend])
        same = groupby(in_order, key=lambda backend: numbers[backend])
        groups[str(name)] = [sorted(backends) for _, backends in same]
    return groups


def fold(rows: pd.DataFrame) -> pd.DataFrame:
    """Average values over rows that differ by backend only.

    Args:
        rows: rows of one setting, with a column ``name``; rows of different names stay apart.

    Returns:
        The ``ok`` rows, one per name, observation and seed: ``value`` and the ends of its interval
        are means over backends, ``least`` and ``most`` the extremes of the value over backends.
    """
    known = rows[rows["status"] == OK].assign(least=rows["value"], most=rows["value"])
    keys = ["name", *_FOLDED, "seed"]
    groups = known.groupby(keys, dropna=False, sort=False, observed=True)
    table = groups.agg(
        value=("value", "mean"), n=("n", "min"), least=("least", "min"), most=("most", "max")
    )
    return table.join(_mean_ends(groups)).reset_index().assign(status=OK)


def over_seeds(folded: pd.DataFrame, run: Run) -> pd.DataFrame:
    """Average folded rows over seeds; a single seed keeps its interval over images.

    Args:
        folded: rows as :func:`fold` returns them.
        run: the run of the rows.

    Returns:
        One row per name and observation, as :func:`bench.across_seeds` returns them, with
        ``least`` and ``most``, the extremes of the means of the backends, and the smallest ``n``.
    """
    means = run.across_seeds(folded, apart=["name"])
    keys = ["name", *_FOLDED]
    groups = folded.groupby(keys, dropna=False, sort=False, observed=True)
    more = groups.agg(least=("least", "mean"), most=("most", "mean"), n=("n", "min"))
    more = more.join(_mean_ends(groups).add_suffix("_of_images")).reset_index()
    means = means.merge(more, on=keys, how="left")
    for end in _ENDS:
        means[end] = means[end].where(means["seeds"] > 1, means[f"{end}_of_images"])
    return means


def joined(names: Iterable[str]) -> str:
    """Return names as a list in a sentence.

    >>> joined(["a", "b", "c"])
    'a, b and c'
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _variation(column: str, value: object) -> str:
    if column == "train_images":
        return f"{value} training images"
    if column == "device":
        return f"on {value}"
    return short_hash(value) if column == "protocol_hash" else f"version {value}"


def _mean_ends(groups: Any) -> pd.DataFrame:
    """Return the mean ends of the intervals of each group, missing unless all rows have them."""
    ends = groups[_ENDS]
    whole = ends.count().eq(groups.size(), axis=0)
    return ends.mean().where(whole)
