"""Protocols that have the same name and other values, which tables must keep apart."""

import pandas as pd

from bench.report.model_means import joined
from bench.report.site.distinct_names import numbered
from bench.store.aggregation import of_models

VALUES = "values"
"""Column that says which values of a protocol a row has; "" if its name is enough."""


def with_protocol_values(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the column ``values``, which tells protocols of the same name apart.

    A protocol states other values for each model, so hashes are compared within a model. Runs share
    the values of a protocol unless a model has another hash in each of them.

    Args:
        rows: rows of several runs, with the column ``run``.
    """
    labels = pd.Series("", index=rows.index, dtype=object)
    for _, group in rows.groupby(["dataset", "protocol"], dropna=False, sort=False):
        numbers = _numbers(of_models(group))
        if numbers.nunique() < 2:
            continue
        runs = group["run"].loc[numbers.index].groupby(numbers, sort=False).unique()
        names = dict(zip(runs.index, numbered(f"values of {joined(r)}" for r in runs), strict=True))
        own = numbers.map(names)
        # Rows of the dataset and of extractors belong to the first values of their run.
        of_run = dict(zip(group["run"].loc[numbers.index][::-1], own[::-1], strict=True))
        labels.loc[group.index] = own.reindex(group.index).fillna(group["run"].map(of_run))
    return rows.assign(**{VALUES: labels.fillna("")})


def _numbers(rows: pd.DataFrame) -> "pd.Series[int]":
    """Return for each row the number of its values of the protocol, from 0.

    Args:
        rows: rows of models, of one dataset and name of a protocol.
    """
    keys = ["run", "model", "protocol_hash"]
    distinct = rows[keys].drop_duplicates()
    # A run in which a model has several hashes takes part with one of them at a time.
    distinct = distinct.assign(layer=distinct.groupby(["run", "model"]).cumcount())
    known: list[dict[str, str]] = []
    numbers: dict[tuple[str, ...], int] = {}
    for _, part in distinct.groupby(["run", "layer"], sort=False):
        hashes = dict(zip(part["model"], part["protocol_hash"], strict=True))
        number = next((i for i, other in enumerate(known) if _agree(hashes, other)), len(known))
        if number == len(known):
            known.append({})
        known[number] |= hashes
        numbers |= {tuple(map(str, key)): number for key in part[keys].to_numpy().tolist()}
    found = [numbers[tuple(map(str, key))] for key in rows[keys].to_numpy().tolist()]
    return pd.Series(found, index=rows.index)


def _agree(one: dict[str, str], other: dict[str, str]) -> bool:
    return all(str(other.get(model, digest)) == str(digest) for model, digest in one.items())
