"""Two tables of rows, compared observation by observation."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from bench.comparison.differences import incomparable
from bench.comparison.explanations import explain
from bench.comparison.failures import without_values
from bench.comparison.pairing import CELL, SIDES, newest_cells, pair_cells
from bench.comparison.policy import DEFAULT_TOLERANCE, Policy
from bench.comparison.statistics import judge, summarise

OBSERVATION = [
    *CELL,
    "metric",
    "split",
    "layer",
    "time_step",
    "noise_kind",
    "noise_level",
    "epoch_selection",
]
COMPARED = ("better", "same", "worse", "changed")
EXIT_SAME = 0
EXIT_WORSE = 1
EXIT_INCOMPLETE = 3


@dataclass(frozen=True)
class Comparison:
    """What a run is against a reference.

    Attributes:
        observations: one row an observation: the columns that name it, ``pair`` (of ``cells``),
            ``verdict`` (``better``, ``same``, ``worse``, ``changed``, ``incomparable``,
            ``missing`` or ``new``), ``gates`` (whether the verdict counts), ``machine`` (whether it
            measures the machine), ``method``, ``reference`` and ``here`` (means over seeds),
            ``unit`` and ``reason``.
        cells: the pairs of cells, see :func:`bench.comparison.pairing.pair_cells`.
        notes: what a reader has to know besides.
        strict: whether changes without a direction and incomparable pairs count.
    """

    observations: pd.DataFrame
    cells: pd.DataFrame
    notes: tuple[str, ...]
    strict: bool

    @cached_property
    def regressions(self) -> pd.DataFrame:
        """The observations that make the gate fail."""
        failing = ("worse", "changed") if self.strict else ("worse",)
        return self._counting(*failing)

    @cached_property
    def missing(self) -> pd.DataFrame:
        """The observations that the run lacks and should have."""
        lacking = ("missing", "incomparable") if self.strict else ("missing",)
        return self._counting(*lacking)

    @cached_property
    def missing_cells(self) -> pd.DataFrame:
        """Cells of the reference that have no counterpart, or fewer seeds."""
        return self.cells[~self.cells["state"].isin(["compared", "new"])]

    @property
    def comparable(self) -> bool:
        """Whether anything that counts could be compared."""
        return not self._counting(*COMPARED).empty

    @property
    def exit_code(self) -> int:
        """0: no regression; 1: one; 3: nothing comparable, or cells or observations missing."""
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
    """Compare the rows of a run with those of a reference, see docs/gate.md for the rules.

    Args:
        here: rows of the run, as :func:`bench.load_results` gives them.
        reference: rows of the reference, alike.
        policy: what counts, and how much.
    """
    policy = policy or Policy()
    here, reference = newest_cells(here), newest_cells(reference)
    cells = pair_cells(here, reference)
    rows = _paired(here, reference, cells)
    lost, rest = without_values(rows, policy)
    measured = _measured(rest, policy)
    observations = pd.concat([lost, measured], ignore_index=True)
    steady = observations["metric"].map(lambda name: policy.gauge(name).reproducible)
    observations = observations.assign(machine=~steady.astype(bool))[_COLUMNS]
    observations = observations.sort_values(
        [*OBSERVATION, "pair"], kind="stable", ignore_index=True
    )
    return Comparison(observations, cells, _notes(rows, policy), policy.strict)


_COLUMNS = [*OBSERVATION, "pair", "verdict", "gates", "machine", "method", "reference", "here",
            "unit", "reason"]  # fmt: skip


def _paired(here: pd.DataFrame, reference: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """The rows of cells that both sides have, with their ``pair`` and ``side``."""
    both = cells[~cells["state"].isin(["missing", "new"])]
    parts = []
    for side, rows in zip(SIDES, (reference, here), strict=True):
        keys = both[[*CELL, f"protocol_hash_{side}"]].assign(pair=both.index, side=side)
        keys = keys.set_axis([*CELL, "protocol_hash", "pair", "side"], axis=1)
        parts.append(rows.merge(keys, on=[*CELL, "protocol_hash"]))
    rows = pd.concat(parts, ignore_index=True).sort_values("seed", kind="stable", ignore_index=True)
    rows["pair"] = rows["pair"].astype(int)
    return rows.assign(id=rows.groupby([*OBSERVATION, "pair"], dropna=False).ngroup())


def _measured(rows: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """Verdicts of the observations that have a value on some side."""
    named = rows.drop_duplicates("id").set_index("id").sort_index()
    on = rows.groupby("id")["side"].agg(["nunique", "first"])
    table = named[[*OBSERVATION, "pair", "unit"]].copy()
    table["higher_is_better"] = named["higher_is_better"].astype("boolean")
    table["gates"] = _gates(table, policy)
    table["verdict"] = np.where(on["first"] == "here", "new", "missing")
    table["reason"] = np.where(on["first"] == "here", "not in the reference", "not in this run")
    table[["method", "reference", "here"]] = [None, np.nan, np.nan]
    both = on["nunique"] == 2
    reasons = incomparable(rows[rows["id"].isin(both[both].index)], policy)
    table.loc[reasons.index, "verdict"] = "incomparable"
    table.loc[reasons.index, "reason"] = reasons
    left = rows[rows["id"].isin(both[both].index.difference(reasons.index))]
    return table if left.empty else _judged(table, left, policy)


def _judged(table: pd.DataFrame, rows: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """The table with the verdicts of comparable observations filled in."""
    matched = rows.duplicated(["id", "seed"], keep=False)
    matched |= ~matched.groupby(rows["id"]).transform("any")
    over_seeds, over_matched = (_sides(part) for part in (rows, rows[matched]))
    ids = over_seeds.index
    asked = table.loc[ids]
    tolerance = asked["metric"].map(lambda name: policy.gauge(name).tolerance).to_numpy(dtype=float)
    found = judge(over_seeds, over_matched, tolerance, asked["gates"].to_numpy(dtype=bool))
    rises = found["here"] > found["reference"]
    direction = asked["higher_is_better"]
    table.loc[ids, "verdict"] = np.select(
        [~found["differs"], direction.isna(), (rises == direction).fillna(False)],
        ["same", "changed", "better"],
        "worse",
    )
    facts = ["method", "reference", "here"]
    table.loc[ids, facts] = found[facts]
    table.loc[ids, "reason"] = explain(found, tolerance)
    return table


def _sides(rows: pd.DataFrame) -> pd.DataFrame:
    summary = summarise(rows, ["id", "side"])
    sides = [summary.xs(side, level="side").add_suffix(f"_{side}") for side in SIDES]
    return pd.concat(sides, axis=1).sort_index()


def _gates(table: pd.DataFrame, policy: Policy) -> pd.Series:
    whole = table[["layer", "time_step"]].isna().all(axis=1) | policy.strict
    steady = table["metric"].map(lambda name: policy.counts(name)).astype(bool)
    return whole & steady


def _notes(rows: pd.DataFrame, policy: Policy) -> tuple[str, ...]:
    notes = []
    unknown = sorted(set(rows["metric"]) - set(policy.gauges))
    if unknown:
        notes.append(
            f"Of no metric that is known here, so judged by a tolerance of "
            f"{100 * DEFAULT_TOLERANCE:g} %: {', '.join(unknown)}."
        )
    return tuple(notes)
