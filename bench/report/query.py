"""Which rows of a run are meant: conditions as the command line takes them."""

import fnmatch
import functools
import operator
from collections.abc import Iterable

import pandas as pd

from bench.errors import BenchError, UnknownNameError

STATUSES = ("ok", "failed", "skipped", "not_applicable")


def select(rows: pd.DataFrame, conditions: Iterable[str]) -> pd.DataFrame:
    """Rows that meet every condition.

    Args:
        rows: as :func:`bench.load_results` gives them.
        conditions: each ``COLUMN=VALUE,...``, met by rows that have one of the values in the
            column; words may hold ``*`` and ``?``, and no value at all is met by missing ones.

    Raises:
        BenchError: a condition without ``=``, an unknown column, or a value that no row has.
    """
    met = pd.Series(True, index=rows.index)
    for condition in conditions:
        column, equals, wanted = condition.partition("=")
        if not equals:
            raise BenchError(f"--where takes COLUMN=VALUE,..., not {condition!r}.")
        check_column(column, rows)
        met &= functools.reduce(
            operator.or_, (_met(rows[column], column, value) for value in wanted.split(","))
        )
    return rows[met]


def none_met(rows: pd.DataFrame, conditions: Iterable[str]) -> str:
    """What to say where :func:`select` leaves none of the rows."""
    return f"None of the {len(rows):,} rows has {' and '.join(conditions)}."


def check_column(column: str, rows: pd.DataFrame) -> None:
    """Raise :class:`UnknownNameError` unless the rows have the column."""
    if column not in rows:
        raise UnknownNameError("column", column, rows.columns)


def _met(values: pd.Series, column: str, wanted: str) -> "pd.Series[bool]":
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
