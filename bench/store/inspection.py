"""Find what is wrong with a run directory, and say what to do."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.errors import BenchError
from bench.store.run_directory import CellFolder, RunDirectory, load_results
from bench.store.schema import CELLS, CHECKPOINT_FILE, FAILED, RUN_FILE, TABLE_FILE
from bench.system.checksums import SET_ASIDE, DamagedFileError, SummedFolder
from bench.system.files import leftovers

AGAIN = "repeat the command that wrote the run: it computes this again"
CONTINUE = "repeat the command that wrote the run: it continues"
GATHER = "repeat the command that wrote the run: it gathers the rows again"
CLEAN = "repeat the command that wrote the run: it deletes the file"


@dataclass(frozen=True)
class Finding:
    """Something that a user should know about a run directory.

    Attributes:
        where: file or folder, relative to the run directory.
        what: what is the matter with it.
        remedy: what to do.
        damage: True if something that was written is lost or altered.
    """

    where: str
    what: str
    remedy: str
    damage: bool = False


def inspect(path: Path) -> list[Finding]:
    """Return what a user should know about a run directory, without changing it.

    Raises:
        BenchError: ``path`` is not a run directory.
    """
    if not path.is_dir():
        raise BenchError(f"{path} is not a directory.")
    if not (path / RUN_FILE).exists() and not (path / CELLS).is_dir():
        raise BenchError(f"{path} is not a run directory: it has no {RUN_FILE} and no {CELLS}.")
    return [*_inspect_top(path), *_inspect_cells(path)]


def _inspect_top(path: Path) -> Iterator[Finding]:
    try:
        RunDirectory(path)
    except BenchError as error:
        yield Finding(RUN_FILE, str(error), "do what the message says", damage=True)
    if not (path / RUN_FILE).exists():
        remedy = "repeat the command that wrote the run: it writes the file"
        yield Finding(RUN_FILE, "is missing", remedy, damage=True)
    for name in SummedFolder(path).damaged():
        remedy = "move it away and repeat the command" if name == RUN_FILE else GATHER
        yield Finding(name, "is damaged", remedy, damage=True)
    for leftover in leftovers(path, below=False):
        yield Finding(leftover.name, "was left by a process that died", CLEAN)
    yield from _inspect_table(path)


def _inspect_table(path: Path) -> Iterator[Finding]:
    """Compare the number of rows of the table with the rows of the cells."""
    try:
        table = load_results(path)
    except BenchError:
        return
    cells = [folder.rows() for folder in RunDirectory(path).cells() if not folder.damaged()]
    rows = sum(map(len, cells))
    if rows != len(table):
        yield Finding(TABLE_FILE, f"has {len(table)} rows, the cells have {rows}", GATHER)


def _inspect_cells(path: Path) -> Iterator[Finding]:
    try:
        directory = RunDirectory(path)
    except BenchError:
        return
    for folder in directory.cells():
        with directory.claimed(folder.path.name.rpartition("-")[2]) as mine:
            name = folder.path.relative_to(path).as_posix()
            if mine:
                yield from _inspect_cell(folder, name)
            else:
                yield Finding(name, "is in use by a process", "wait until the process ends")


def _inspect_cell(folder: CellFolder, name: str) -> Iterator[Finding]:
    for file in folder.damaged():
        yield Finding(f"{name}/{file}", "is damaged", AGAIN, damage=True)
    for aside in sorted(folder.path.rglob(f"*{SET_ASIDE}")):
        where = f"{name}/{aside.relative_to(folder.path).as_posix()}"
        yield Finding(where, "was damaged and has been computed again", "delete it")
    for leftover in leftovers(folder.path):
        yield Finding(f"{name}/{leftover.name}", "was left by a process that died", CLEAN)
    if folder.exists(CHECKPOINT_FILE):
        yield Finding(name, "was interrupted during training", CONTINUE)
    try:
        rows = folder.rows()
    except DamagedFileError:
        return
    yield from _inspect_rows(rows, name)


def _inspect_rows(rows: pd.DataFrame, name: str) -> Iterator[Finding]:
    failed = rows[rows["status"] == FAILED]
    if not failed.empty:
        what = f"{len(failed)} of {len(rows)} rows failed: {failed['reason'].iloc[0]}"
        yield Finding(name, what, "repeat the command with --retry failed")
    if rows.empty:
        yield Finding(name, "is not finished", CONTINUE)
