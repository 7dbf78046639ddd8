"""What a comparison comes to: one line, and the sections that every form of it prints."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.comparison.compare import COMPARED, EXIT_SAME, EXIT_WORSE, Comparison
from bench.comparison.pairing import CELL

NAMED = 3
ORDER = (*COMPARED, "incomparable", "missing", "new")


@dataclass(frozen=True)
class Line:
    """One line of a section: what it is about, in which cells, both values where known, and why."""

    cell: str
    what: str
    reference: str
    here: str
    reason: str


@dataclass(frozen=True)
class Section:
    """Lines under a title.

    Attributes:
        title: what they have in common.
        lines: at least one.
        short: whether the section is part of the short form.
    """

    title: str
    lines: tuple[Line, ...]
    short: bool = True


def verdict_line(comparison: Comparison) -> str:
    """The outcome in one sentence."""
    if comparison.exit_code == EXIT_WORSE:
        worse = len(comparison.regressions)
        return f"Regression: {_many(worse, 'observation')} worse than in the reference."
    if comparison.exit_code == EXIT_SAME:
        return "No regression."
    if not comparison.comparable:
        return f"Nothing comparable: {_why_nothing(comparison)}"
    lacking = [
        _many(len(table), name)
        for table, name in ((comparison.missing_cells, "cell"), (comparison.missing, "observation"))
        if not table.empty
    ]
    return f"Incomplete: no regression in what was compared, but {' and '.join(lacking)} missing."


def counts_line(comparison: Comparison) -> str:
    """How many observations have which verdict."""
    observations = comparison.observations
    counted = _counts(observations[observations["gates"]])
    beside = _counts(observations[~observations["gates"]])
    told = (
        f" Not counted, single layers and time steps and the machine: {beside}." if beside else ""
    )
    return f"Observations: {counted or 'none'}.{told}"


def sections(comparison: Comparison) -> list[Section]:
    """The lines by verdict, the gravest first; single layers and the same come last."""
    observations = comparison.observations
    names = cell_names(comparison.cells)
    gating = observations[observations["gates"]]
    beside = observations[~observations["gates"]]
    moved = beside["verdict"].isin(["worse", "better", "changed"])
    found = [("Worse", gating[gating["verdict"] == "worse"], True)]
    found += [
        ("Missing", gating[gating["verdict"] == "missing"], True),
        ("Incomparable", gating[gating["verdict"] == "incomparable"], True),
        ("Changed, with no better or worse", gating[gating["verdict"] == "changed"], True),
        ("Of the machine, not counted", beside[moved & beside["machine"]], True),
        ("Better", gating[gating["verdict"] == "better"], False),
        ("New", observations[observations["verdict"] == "new"], False),
        ("Same", gating[gating["verdict"] == "same"], False),
        ("Single layers and time steps, not counted", beside[moved & ~beside["machine"]], False),
    ]
    lines = {title: _lines(table, names) for title, table, _ in found}
    lines["Missing"] = [*_missing_cells(comparison, names), *lines["Missing"]]
    lines["New"] = [*_new_cells(comparison, names), *lines["New"]]
    return [Section(title, tuple(lines[title]), short) for title, _, short in found if lines[title]]


def cell_names(cells: pd.DataFrame) -> dict[Any, str]:
    """``model / backend / dataset`` by pair, with the protocol where there are several."""
    several = cells.duplicated(CELL, keep=False)
    protocols = cells["protocol_reference"].fillna(cells["protocol_here"]).where(several)
    parts = cells[CELL].assign(protocol=protocols)
    return {
        pair: " / ".join(str(part) for part in row if pd.notna(part))
        for pair, *row in parts.itertuples(name=None)
    }


def observation_name(row: Any) -> str:
    """The metric, and in brackets what of the model or the images it holds for."""
    facts = [row.split, row.layer, _step(row.time_step), _noise(row)]
    if row.epoch_selection != "last":
        facts.append(row.epoch_selection)
    told = ", ".join(str(fact) for fact in facts if pd.notna(fact))
    return f"{row.metric} ({told})" if told else str(row.metric)


def number(value: float) -> str:
    """A mean as it is printed; nothing where there is none."""
    return "" if pd.isna(value) else f"{value:.4g}"


def _lines(observations: pd.DataFrame, names: dict[Any, str]) -> list[Line]:
    """A line an observation; those of a cell that share a reason and have no value share a line."""
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
            lines.append(Line(names[pair], _together(metrics), "", "", reason))
    return lines


def _line(cell: str, row: Any) -> Line:
    values = number(row.reference), number(row.here)
    return Line(cell, observation_name(row), *values, row.reason)


def _together(metrics: list[str]) -> str:
    if len(metrics) <= NAMED + 1:
        return ", ".join(metrics)
    return f"{', '.join(metrics[:NAMED])} and {len(metrics) - NAMED} more metrics"


def _missing_cells(comparison: Comparison, names: dict[Any, str]) -> list[Line]:
    lines = []
    cells: Any = comparison.missing_cells.itertuples()
    for row in cells:
        asked = f"seeds {_seeds(row.seeds_reference)} of protocol {row.protocol_reference}"
        if row.state == "missing":
            reason = f"{asked} in the reference, no such cell here"
        elif row.state in ("fewer seeds", "other seeds"):
            reason = f"{asked} in the reference, {_seeds(row.seeds_here)} here"
        else:
            reason = f"{asked} in the reference, protocol {row.protocol_here} here"
        what = "seeds" if row.state in ("fewer seeds", "other seeds") else "whole cell"
        lines.append(Line(names[row.Index], what, "", "", reason))
    return lines


def _new_cells(comparison: Comparison, names: dict[Any, str]) -> list[Line]:
    new: Any = comparison.cells[comparison.cells["state"] == "new"].itertuples()
    lines = []
    for row in new:
        asked = f"seeds {_seeds(row.seeds_here)} of protocol {row.protocol_here}"
        lines.append(Line(names[row.Index], "whole cell", "", "", f"{asked}, not in the reference"))
    return lines


def _why_nothing(comparison: Comparison) -> str:
    cells = comparison.cells
    if not cells["seeds_reference"].map(len).any():
        return "the reference has no rows."
    if not cells["seeds_here"].map(len).any():
        return "this run has no rows."
    if set(cells["state"]) <= {"missing", "new"}:
        return "no cell has the same model, backend and dataset on both sides."
    return "no observation that counts has a comparable value on both sides."


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
