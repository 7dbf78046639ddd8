"""Select rows of a run by conditions, as the command line takes them."""

import fnmatch
import functools
import operator
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from bench.errors import BenchError, UnknownNameError
from bench.store.schema import STATUSES


def select(rows: pd.DataFrame, conditions: Iterable[str]) -> pd.DataFrame:
    """Return the rows that meet every condition.

    Args:
        rows: rows of a run, as :func:`bench.load_results` returns them.
        conditions: conditions ``COLUMN=VALUE,...``. A row meets one if its column has one of the
            values. Words can contain ``*`` and ``?``; an empty value matches missing ones.

    Raises:
        BenchError: a condition without ``=``, an unknown column, or a value that no row has.

    >>> rows = pd.DataFrame({"metric": ["fad", "fid", "ssim"], "seed": [0, 1, 0]})
    >>> select(rows, ["metric=f*", "seed=0"])["metric"].tolist()
    ['fad']
    """
    matches = pd.Series(True, index=rows.index)
    for condition in conditions:
        column, equals, wanted = condition.partition("=")
        if not equals:
            raise BenchError(f"--where takes COLUMN=VALUE,..., not {condition!r}.")
        check_column(column, rows)
        matches &= functools.reduce(
            operator.or_, (_matches(rows[column], column, value) for value in wanted.split(","))
        )
    return rows[matches]


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dictionaries."""
    return [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]


def records_by(
    rows: pd.DataFrame, by: Sequence[str], columns: Sequence[str]
) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Return rows as dictionaries, in lists by the values of some columns.

    A table whose every place selects its own rows is made much faster from these.

    Args:
        rows: the rows.
        by: columns whose values are the key; none of these is missing.
        columns: columns of the dictionaries.

    >>> rows = pd.DataFrame({"metric": ["fad", "ssim", "fad"], "value": [3, 1, 2]})
    >>> records_by(rows, ["metric"], ["value"])
    {('fad',): [{'value': 3}, {'value': 2}], ('ssim',): [{'value': 1}]}
    """
    found = defaultdict(list)
    keys = zip(*(rows[name] for name in by), strict=True)
    for key, record in zip(keys, records(rows[list(columns)]), strict=True):
        found[key].append(record)
    return dict(found)


def no_match(rows: pd.DataFrame, conditions: Iterable[str]) -> str:
    """Return the message for conditions that no row meets."""
    return f"None of the {len(rows):,} rows has {' and '.join(conditions)}."


def check_column(column: str, rows: pd.DataFrame) -> None:
    """Check that the rows have a column.

    Raises:
        UnknownNameError: they do not.
    """
    if column not in rows:
        raise UnknownNameError("column", column, rows.columns)


def _matches(values: pd.Series, column: str, wanted: str) -> "pd.Series[bool]":
    if wanted == "":
        return values.isna()
    if pd.api.types.is_bool_dtype(values):
        if wanted.lower() not in {"true", "false"}:
            raise UnknownNameError(column, wanted, ["true", "false"])
        return (values == (wanted.lower() == "true")).fillna(False).astype(bool)
    if pd.api.types.is_numeric_dtype(values):
        try:
            return (values == float(wanted)).fillna(False).astype(bool)
        except ValueError as error:
            raise BenchError(f"{column} is a number, not {wanted!r}.") from error
    known = STATUSES if column == "status" else values.dropna().unique()
    matching = [name for name in known if name == wanted or fnmatch.fnmatchcase(name, wanted)]
    if not matching:
        raise UnknownNameError(column, wanted, known)
    return values.isin(matching)
