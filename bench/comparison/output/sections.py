"""The contents of a comparison that all of its formats show: a verdict, and sections of lines."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.comparison.compare import COMPARED, EXIT_SAME, EXIT_WORSE, INCONCLUSIVE, Comparison
from bench.store.schema import CELL
from bench.system.formatting import number

NAMED = 3
WORSE, MISSING, INCOMPARABLE = "Worse", "Missing", "Incomparable"
CHANGED = "Changed, with no better or worse"
UNCLEAR = "Inconclusive: few seeds, and another processor"
# Verdicts by title of the section, for the sections that can count.
VERDICTS = {
    WORSE: "worse",
    MISSING: "missing",
    INCOMPARABLE: "incomparable",
    CHANGED: "changed",
    UNCLEAR: INCONCLUSIVE,
}
ORDER = (*COMPARED, INCONCLUSIVE, "incomparable", "missing", "new")


@dataclass(frozen=True)
class SectionLine:
    """One line of a section.

    Attributes:
        cell: name of the cell.
        observation: name of the observation, or of several that share a reason.
        reference: mean of the reference; "" if unknown.
        here: mean of the run; "" if unknown.
        reason: why the line is in this section.
    """

    cell: str
    observation: str
    reference: str
    here: str
    reason: str


@dataclass(frozen=True)
class Section:
    """Lines under a title.

    Attributes:
        title: what the lines have in common.
        lines: the lines; at least one.
        verdict: verdict that all lines have; empty for lines that never count.
    """

    title: str
    lines: tuple[SectionLine, ...]
    verdict: str = ""


def verdict_line(comparison: Comparison) -> str:
    """Return the verdict in one sentence."""
    if comparison.exit_code == EXIT_WORSE:
        worse = len(comparison.regressions)
        return f"Regression: {_many(worse, 'observation')} worse than in the reference."
    if comparison.exit_code == EXIT_SAME:
        if comparison.inconclusive.empty:
            return "No regression."
        unclear = _many(len(comparison.inconclusive), "observation")
        return f"No regression, but {unclear} inconclusive."
    if not comparison.comparable:
        return f"Nothing comparable: {_why_nothing(comparison)}"
    lacking = [
        _many(len(table), name)
        for table, name in ((comparison.missing_cells, "cell"), (comparison.missing, "observation"))
        if not table.empty
    ]
    return f"Incomplete: no regression in what was compared, but {' and '.join(lacking)} missing."


def counts_line(comparison: Comparison) -> str:
    """Return the number of observations per verdict, in one line."""
    observations = comparison.observations
    counted = _counts(observations[observations["gates"]])
    others = _counts(observations[~observations["gates"]])
    line = f"Observations: {counted or 'none'}."
    if others:
        line += f" Not counted, single layers and time steps and the machine: {others}."
    return line


def sections(comparison: Comparison, show_all: bool = False) -> list[Section]:
    """Return the lines of a comparison by verdict, the gravest first.

    Args:
        comparison: the comparison to show.
        show_all: True to list better, new and same observations, and layers and time steps, too.
    """
    observations = comparison.observations
    names = cell_names(comparison.cells)
    gating = observations[observations["gates"]]
    others = observations[~observations["gates"]]
    moved = others["verdict"].isin(["worse", "better", "changed"])
    by_verdict = {verdict: _lines(gating[gating["verdict"] == verdict], names) for verdict in ORDER}
    new = _lines(observations[observations["verdict"] == "new"], names)
    grave = {
        WORSE: by_verdict["worse"],
        MISSING: [*_missing_cells(comparison, names), *by_verdict["missing"]],
        UNCLEAR: by_verdict[INCONCLUSIVE],
        INCOMPARABLE: by_verdict["incomparable"],
        CHANGED: by_verdict["changed"],
        "Of the machine, not counted": _lines(others[moved & others["machine"]], names),
    }
    harmless = {
        "Better": by_verdict["better"],
        "New": [*_new_cells(comparison, names), *new],
        "Same": by_verdict["same"],
        "Single layers and time steps, not counted": _lines(
            others[moved & ~others["machine"]], names
        ),
    }
    shown = grave | harmless if show_all else grave
    return [
        Section(title, tuple(lines), VERDICTS.get(title, ""))
        for title, lines in shown.items()
        if lines
    ]


def cell_names(cells: pd.DataFrame) -> dict[Any, str]:
    """Return ``model / backend / dataset`` by pair, and the protocol if a cell has several."""
    several = cells.duplicated([*CELL], keep=False)
    protocols = cells["protocol_reference"].fillna(cells["protocol_here"]).where(several)
    parts = cells[[*CELL]].assign(protocol=protocols)
    return {
        pair: " / ".join(str(part) for part in row if pd.notna(part))
        for pair, *row in parts.itertuples(name=None)
    }


def observation_name(row: Any) -> str:
    """Return the metric and, in brackets, the split, layer, time step, noise and epoch."""
    facts = [row.split, row.layer, _step(row.time_step), _noise(row)]
    if row.epoch_selection != "last":
        facts.append(row.epoch_selection)
    details = ", ".join(str(fact) for fact in facts if pd.notna(fact))
    return f"{row.metric} ({details})" if details else str(row.metric)


def _lines(observations: pd.DataFrame, names: dict[Any, str]) -> list[SectionLine]:
    """Return a line per observation; observations without value share a line per reason."""
    groups: dict[Any, list[Any]] = {}
    rows: Any = observations.itertuples()
    for row in rows:
        valued = row.Index if pd.notna(row.here) else None
        groups.setdefault((row.pair, row.reason, valued), []).append(row)
    lines = []
    for (pair, reason, _), group in groups.items():
        if len(group) == 1:
            lines.append(_line(names[pair], group[0]))
        else:
            metrics = list(dict.fromkeys(row.metric for row in group))
            lines.append(SectionLine(names[pair], _join(metrics), "", "", reason))
    return lines


def _line(cell: str, row: Any) -> SectionLine:
    values = number(row.reference), number(row.here)
    return SectionLine(cell, observation_name(row), *values, row.reason)


def _join(metrics: list[str]) -> str:
    if len(metrics) <= NAMED + 1:
        return ", ".join(metrics)
    return f"{', '.join(metrics[:NAMED])} and {len(metrics) - NAMED} more metrics"


def _missing_cells(comparison: Comparison, names: dict[Any, str]) -> list[SectionLine]:
    lines = []
    cells: Any = comparison.missing_cells.itertuples()
    for row in cells:
        cell = f"seeds {_seeds(row.seeds_reference)} of protocol {row.protocol_reference}"
        if row.state == "missing":
            reason = f"{cell} in the reference, no such cell here"
        elif row.state in ("fewer seeds", "other seeds"):
            reason = f"{cell} in the reference, {_seeds(row.seeds_here)} here"
        else:
            reason = f"{cell} in the reference, protocol {row.protocol_here} here"
        what = "seeds" if row.state in ("fewer seeds", "other seeds") else "whole cell"
        lines.append(SectionLine(names[row.Index], what, "", "", reason))
    return lines


def _new_cells(comparison: Comparison, names: dict[Any, str]) -> list[SectionLine]:
    new: Any = comparison.cells[comparison.cells["state"] == "new"].itertuples()
    lines = []
    for row in new:
        cell = f"seeds {_seeds(row.seeds_here)} of protocol {row.protocol_here}"
        lines.append(
            SectionLine(names[row.Index], "whole cell", "", "", f"{cell}, not in the reference")
        )
    return lines


def _why_nothing(comparison: Comparison) -> str:
    cells = comparison.cells
    if not cells["seeds_reference"].map(len).any():
        return "the reference has no rows."
    if not cells["seeds_here"].map(len).any():
        return "this run has no rows."
    if set(cells["state"]) <= {"missing", "new"}:
        return "no cell of this run has the model, backend and dataset of a cell of the reference."
    if not cells["model_values"].any():
        return "no model has a value on either side; `bench results DIR` shows the reasons."
    return "no observation that counts has comparable values on both sides."


def _counts(observations: pd.DataFrame) -> str:
    counts = observations["verdict"].value_counts()
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in ORDER if verdict in counts)


def _many(count: int, name: str) -> str:
    return f"{count} {name} is" if count == 1 else f"{count} {name}s are"


def _seeds(seeds: tuple[int, ...]) -> str:
    return ", ".join(map(str, seeds))


def _step(step: Any) -> str | None:
    return None if pd.isna(step) else f"t = {step}"


def _noise(row: Any) -> str | None:
    if pd.isna(row.noise_kind):
        return None
    return row.noise_kind if pd.isna(row.noise_level) else f"{row.noise_kind} {row.noise_level:g}"
