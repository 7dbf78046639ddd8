"""Compare two tables of rows, observation by observation."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from bench.comparison.differences import incomparable, other_processors
from bench.comparison.explanations import explain
from bench.comparison.failures import without_values
from bench.comparison.pairing import SIDES, newest_cells, pair_cells
from bench.comparison.policy import Policy
from bench.comparison.statistics import judge, summarise
from bench.store.declarations import DEFAULT_TOLERANCE
from bench.store.other_neurons import footnotes, mark_other_neurons
from bench.store.schema import CELL, ENOUGH_SEEDS, MODEL, PAIRED_BY

COMPARED = ("better", "same", "worse", "changed")
INCONCLUSIVE = "inconclusive"
EXIT_SAME = 0
EXIT_WORSE = 1
EXIT_INCOMPLETE = 3
_JUDGED = ["backend", "neuron_verdict"]
# Columns of Comparison.observations.
_COLUMNS = [
    *PAIRED_BY,
    "pair",
    "verdict",
    "gates",
    "machine",
    "method",
    "reference",
    "here",
    "unit",
    "reason",
]


@dataclass(frozen=True)
class Comparison:
    """The result of comparing a run with a reference.

    Attributes:
        observations: one row per observation: the columns that identify it, ``pair`` (its index in
            ``cells``), ``verdict`` (``better``, ``same``, ``worse``, ``changed``,
            ``inconclusive``, ``incomparable``, ``missing`` or ``new``), ``gates`` (True if the
            verdict counts), ``machine`` (True if it measures the machine), ``method``,
            ``reference`` and ``here`` (means over seeds), ``unit`` and ``reason``.
        cells: pairs of cells, as :func:`bench.comparison.pairing.pair_cells` returns them, with
            ``model_values``: True if a model's cell, and not an extractor's, has a value on a side.
        notes: remarks for the reader.
        strict: True if changes without a direction and incomparable pairs count.
    """

    observations: pd.DataFrame
    cells: pd.DataFrame
    notes: tuple[str, ...]
    strict: bool

    @cached_property
    def regressions(self) -> pd.DataFrame:
        """Observations that make the gate fail."""
        return self._counting("worse", *(["changed"] if self.strict else []))

    @cached_property
    def inconclusive(self) -> pd.DataFrame:
        """Observations that moved, but with too few seeds to tell the change from the processor."""
        return self._counting(INCONCLUSIVE)

    @cached_property
    def missing(self) -> pd.DataFrame:
        """Observations of the reference that the run does not have."""
        return self._counting("missing", *(["incomparable"] if self.strict else []))

    @cached_property
    def missing_cells(self) -> pd.DataFrame:
        """Cells of the reference that the run does not have, or has with fewer seeds."""
        return self.cells[~self.cells["state"].isin(["compared", "new"])]

    @property
    def comparable(self) -> bool:
        """True if anything that counts was compared, and a model has a value."""
        compared = not self._counting(*COMPARED, INCONCLUSIVE).empty
        return bool(self.cells["model_values"].any()) and compared

    @property
    def exit_code(self) -> int:
        """0: no regression; 1: a regression; 3: nothing comparable, or something is missing."""
        if not self.regressions.empty:
            return EXIT_WORSE
        if not self.comparable or not self.missing.empty or not self.missing_cells.empty:
            return EXIT_INCOMPLETE
        return EXIT_SAME

    def _counting(self, *verdicts: str) -> pd.DataFrame:
        chosen = self.observations["verdict"].isin(verdicts) & self.observations["gates"]
        return self.observations[chosen]


def compare(
    here: pd.DataFrame, reference: pd.DataFrame, policy: Policy | None = None
) -> Comparison:
    """Compare the rows of a run with the rows of a reference, by the rules of docs/gate.md.

    Args:
        here: rows of the run, as :func:`bench.load_results` returns them.
        reference: rows of the reference, as :func:`bench.load_results` returns them.
        policy: what counts, and how large a change has to be; ``Policy()`` if None.
    """
    policy = policy or Policy()
    here, reference = newest_cells(here), newest_cells(reference)
    cells = pair_cells(here, reference)
    rows = _paired(here, reference, cells)
    cells["model_values"] = cells.index.isin(_model_pairs(rows))
    without, rest = without_values(rows, policy)
    observations = pd.concat([without, _measured(rest, policy)], ignore_index=True)
    steady = observations["metric"].map(policy.reproducible)
    observations = observations.assign(machine=~steady.astype(bool))[_COLUMNS]
    order = [*PAIRED_BY, "pair"]
    observations = observations.sort_values(order, kind="stable", ignore_index=True)
    both = pd.concat([here[_JUDGED], reference[_JUDGED]])
    cells = mark_other_neurons(cells, both)
    notes = (*_notes(rows, policy), *footnotes(cells["backend"]))
    return Comparison(observations, cells, notes, policy.strict)


def _paired(here: pd.DataFrame, reference: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of cells that both sides have, with ``pair``, ``side`` and ``id``."""
    both = cells[~cells["state"].isin(["missing", "new"])]
    on = [*CELL, "protocol_hash"]
    parts = []
    for side, rows in zip(SIDES, (reference, here), strict=True):
        keys = both[[*CELL, f"protocol_hash_{side}"]].set_axis(on, axis=1)
        parts.append(rows.merge(keys.assign(pair=both.index, side=side), on=on))
    rows = pd.concat(parts, ignore_index=True).sort_values("seed", kind="stable", ignore_index=True)
    rows["pair"] = rows["pair"].astype(int)
    return rows.assign(id=rows.groupby([*PAIRED_BY, "pair"], dropna=False).ngroup())


def _model_pairs(rows: pd.DataFrame) -> "pd.Series[int]":
    """Return the pairs of models' cells that have a value on at least one side."""
    return rows.loc[(rows["kind"] == MODEL) & rows["value"].notna(), "pair"]


def _measured(rows: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """Return the verdicts on observations that have a value on at least one side."""
    named = rows.drop_duplicates("id").set_index("id").sort_index()
    sides = rows.groupby("id")["side"].agg(["nunique", "first"])
    table = named[[*PAIRED_BY, "pair", "unit"]].copy()
    table["higher_is_better"] = named["higher_is_better"].astype("boolean")
    table["gates"] = _gates(table, policy)
    table["verdict"] = np.where(sides["first"] == "here", "new", "missing")
    table["reason"] = np.where(sides["first"] == "here", "not in the reference", "not in this run")
    table[["method", "reference", "here"]] = [None, np.nan, np.nan]
    both = sides.index[sides["nunique"] == 2]
    reasons = incomparable(rows[rows["id"].isin(both)], policy)
    table.loc[reasons.index, "verdict"] = "incomparable"
    table.loc[reasons.index, "reason"] = reasons
    comparable = rows[rows["id"].isin(both.difference(reasons.index))]
    return table if comparable.empty else _judged(table, comparable, policy)


def _judged(table: pd.DataFrame, rows: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """Return the table with the verdicts of comparable observations filled in."""
    matched = rows.duplicated(["id", "seed"], keep=False)
    matched |= ~matched.groupby(rows["id"]).transform("any")
    over_seeds, over_matched = _sides(rows), _sides(rows[matched])
    ids = over_seeds.index
    asked = table.loc[ids]
    tolerance = asked["metric"].map(policy.tolerance).to_numpy(dtype=float)
    judged = judge(over_seeds, over_matched, tolerance, asked["gates"].to_numpy(dtype=bool))
    rises = judged["here"] > judged["reference"]
    direction = asked["higher_is_better"]
    table.loc[ids, "verdict"] = np.select(
        [~judged["differs"], direction.isna(), (rises == direction).fillna(False)],
        ["same", "changed", "better"],
        "worse",
    )
    facts = ["method", "reference", "here"]
    table.loc[ids, facts] = judged[facts]
    table.loc[ids, "reason"] = explain(judged, tolerance)
    few = ids[(judged["method"] != "seeds") & judged["differs"]]
    reasons = other_processors(rows[rows["id"].isin(few)])
    table.loc[reasons.index, "verdict"] = INCONCLUSIVE
    few_seeds = f", fewer than {ENOUGH_SEEDS} seeds of each, and another "
    table.loc[reasons.index, "reason"] += few_seeds + reasons
    return table


def _sides(rows: pd.DataFrame) -> pd.DataFrame:
    """Return summaries by ``id``, with a set of columns for each side."""
    summary = summarise(rows, ["id", "side"])
    sides = [summary.xs(side, level="side").add_suffix(f"_{side}") for side in SIDES]
    return pd.concat(sides, axis=1).sort_index()


def _gates(table: pd.DataFrame, policy: Policy) -> pd.Series:
    whole = table[["layer", "time_step"]].isna().all(axis=1) | policy.strict
    return whole & table["metric"].map(policy.counts).astype(bool)


def _notes(rows: pd.DataFrame, policy: Policy) -> tuple[str, ...]:
    unknown = sorted(set(rows["metric"]) - set(policy.metrics))
    if not unknown:
        return ()
    tolerance = f"{100 * DEFAULT_TOLERANCE:g} %"
    return (
        f"Unknown metrics, compared with the default tolerance of {tolerance}: "
        f"{', '.join(unknown)}.",
    )
