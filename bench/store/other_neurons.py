"""The mark of backends that compute another neuron, in every table and plot.

Numbers of such a backend are no numbers of the model on the neuron that its protocol sets: they
are shown with the mark and a footnote, and are never ranked.
"""

from collections.abc import Iterable

import pandas as pd

from bench.store.schema import ANOTHER_NEURON

DAGGER = "\u2020"
MARK = f" {DAGGER}"
IN_SHORT = f"{DAGGER} computes another neuron"
FOOTNOTE = (
    f"{DAGGER} This backend computes another neuron than it is asked for, and is not ranked. To "
    "see where it differs: bench check backend NAME."
)


def mark_other_neurons(table: pd.DataFrame, rows: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return a table with the mark behind the names of backends that compute another neuron.

    Args:
        table: table with a column ``backend``.
        rows: rows whose column ``neuron_verdict`` decides; None for the table itself. A backend
            that computes another neuron in one of them is marked wherever it stands.

    >>> rows = pd.DataFrame(
    ...     {"backend": ["mine", "fused"], "neuron_verdict": ["another_neuron", "exact"]}
    ... )
    >>> mark_other_neurons(rows)["backend"].tolist()
    ['mine \u2020', 'fused']
    """
    judged = table if rows is None else rows
    others = set(judged.loc[judged["neuron_verdict"] == ANOTHER_NEURON, "backend"])
    others = {name for name in others if not is_marked(name)}
    if not others:
        return table
    names = table["backend"]
    return table.assign(backend=names.mask(names.isin(others), names + MARK))


def is_marked(backend: object) -> bool:
    """Return True if the name of a backend has the mark.

    >>> is_marked("mine \u2020"), is_marked("mine"), is_marked(None)
    (True, False, False)
    """
    return isinstance(backend, str) and backend.endswith(MARK)


def without_mark(backend: str) -> str:
    """Return the registered name of a backend.

    >>> without_mark("mine \u2020")
    'mine'
    """
    return backend.removesuffix(MARK)


def footnotes(backends: Iterable[object]) -> tuple[str, ...]:
    """Return the footnote that explains the mark, if one of the backends has it."""
    return (FOOTNOTE,) if any(map(is_marked, backends)) else ()
