"""Several run directories as one."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.store.declarations import known_declarations
from bench.store.run_directory import CellFolder, RunDirectory, load_results
from bench.store.schema import (
    CELL,
    CELLS,
    EXTRACTORS_FOLDER,
    OK,
    PAIRED_BY,
    RUN_FILE,
    SCHEMA_VERSION,
)

NAMED = 3
_NUMBER = [name for name in PAIRED_BY if name not in CELL] + ["metric_version", "extractor"]


def merge_runs(
    runs: Sequence[Path], out: Path, place: Callable[[Path, Path], Any] = shutil.copytree
) -> int:
    """Write the cells of several runs into one new run directory.

    A cell that several runs have, which its key tells, must have the same numbers in all of them,
    except for metrics of the machine. It is taken from the run with the most values of it.

    Args:
        runs: run directories or references.
        out: path of the new run directory, which must not exist yet or be empty.
        place: how a cell's folder gets to its new place: a copy, or ``os.symlink``.

    Returns:
        The number of cells.

    Raises:
        BenchError: a run cannot be read, runs disagree about a cell, or ``out`` cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BenchError(f"{out} exists and is not empty: choose a new directory with --out.")
    rows = {run: load_results(run) for run in runs}
    _check_conflicts(rows)
    try:
        return _write(rows, out, place)
    except OSError as error:
        raise BenchError(f"{out} cannot be written: {error.strerror}.") from error


def _write(rows: dict[Path, pd.DataFrame], out: Path, place: Callable[[Path, Path], Any]) -> int:
    """Write the merged run next to ``out``, and move it there when it is complete.

    Args:
        rows: rows of each run.
        out: path of the new run directory.
        place: how a cell's folder gets to its new place.

    Returns:
        The number of cells.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        staged = Path(folder) / "run"
        (staged / CELLS).mkdir(parents=True)
        commands = [command for run in rows for command in _commands(run)]
        unique = [c for i, c in enumerate(commands) if c not in commands[:i]]
        content = {"schema_version": SCHEMA_VERSION, "commands": unique}
        (staged / RUN_FILE).write_text(json.dumps(content, indent=2), encoding="utf-8")
        cells = list(_cells(rows))
        for run, key, own in cells:
            _write_cell(run, key, own, staged, place)
        for run in rows:
            if (run / EXTRACTORS_FOLDER).is_dir():
                shutil.copytree(
                    run / EXTRACTORS_FOLDER, staged / EXTRACTORS_FOLDER, dirs_exist_ok=True
                )
        RunDirectory(staged).collect()
        if out.exists():
            out.rmdir()
        os.replace(staged, out)
    return len(cells)


def _write_cell(
    run: Path, key: str, rows: pd.DataFrame, target: Path, place: Callable[[Path, Path], Any]
) -> None:
    """Write a cell into the merged run.

    Args:
        run: run directory that the cell is taken from.
        key: key of the cell.
        rows: rows of the cell.
        target: the merged run directory.
        place: how the cell's folder gets to its new place.
    """
    folder = next((run / CELLS).glob(f"*-{key}/"), None)
    if folder is not None:
        place(folder.resolve(), target / CELLS / folder.name)
        return
    # A reference has rows only.
    first = rows.iloc[0]
    name = "-".join([*(str(first[each]) for each in CELL), f"s{first['seed']}", key])
    CellFolder(target / CELLS / name).write_rows(rows)


def _cells(rows: dict[Path, pd.DataFrame]) -> Iterator[tuple[Path, str, pd.DataFrame]]:
    """Yield each cell once: the run that it is taken from, its key and its rows."""
    found: dict[str, tuple[Path, pd.DataFrame]] = {}
    for run, table in rows.items():
        for key, own in table.groupby("cell_key", sort=False):
            if key not in found or _values(own) > _values(found[str(key)][1]):
                found[str(key)] = run, own
    for key, (run, own) in found.items():
        yield run, key, own


def _values(rows: pd.DataFrame) -> int:
    return int((rows["status"] == OK).sum())


def _check_conflicts(rows: dict[Path, pd.DataFrame]) -> None:
    """Check that no two runs have different numbers for one cell.

    Raises:
        BenchError: they do; the message names cells and metrics.
    """
    machine = {
        name
        for run, table in rows.items()
        for name, each in known_declarations(run, table["metric"]).items()
        if not each.reproducible
    }
    for (one, first), (other, second) in combinations(rows.items(), 2):
        both = first.merge(second, on=["cell_key", *_NUMBER], suffixes=("", "_other"))
        both = both[(both["status"] == OK) & (both["status_other"] == OK)]
        both = both[~both["metric"].isin(machine) & (both["value"] != both["value_other"])]
        if not both.empty:
            raise BenchError(f"{one} and {other} disagree: {_named(both)}. {_WAY_OUT}")


_WAY_OUT = "Remove the folder of one of the two from cells/, and repeat the command that wrote it."


def _named(rows: pd.DataFrame) -> str:
    """Return the cells of rows, each with the metrics that differ."""
    texts = []
    for _, cell in rows.groupby("cell_key", sort=False):
        first, metrics = cell.iloc[0], list(cell["metric"].unique())
        more = f" and {len(metrics) - NAMED} more" if len(metrics) > NAMED else ""
        name = "/".join(str(first[each]) for each in CELL)
        texts.append(f"{name} seed {first['seed']} in {', '.join(metrics[:NAMED])}{more}")
    more = f" and {len(texts) - NAMED} more cells" if len(texts) > NAMED else ""
    return "; ".join(texts[:NAMED]) + more


def _commands(run: Path) -> list[dict[str, Any]]:
    content = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))
    commands: list[dict[str, Any]] = content["commands"]
    return commands
