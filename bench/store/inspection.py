"""What is wrong with a run directory, and what to do about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.errors import BenchError
from bench.store.run_directory import CELLS, RUN_FILE, TABLE, CellFolder, RunDirectory, load_results
from bench.system.checksums import SET_ASIDE, DamagedFileError, SummedFolder
from bench.system.files import leftovers
from bench.training.checkpoints import CHECKPOINT_FILE

AGAIN = "the same bench run again does it anew"


@dataclass(frozen=True)
class Finding:
    """Something about a run directory.

    Attributes:
        where: a file or folder, relative to the directory.
        what: was found there.
        remedy: what to do.
        damage: whether something that was written is lost or altered.
    """

    where: str
    what: str
    remedy: str
    damage: bool = False


def inspect(path: Path) -> list[Finding]:
    """All that is worth telling of a run directory; it is not changed.

    Raises:
        BenchError: it is none.
    """
    if not path.is_dir():
        raise BenchError(f"{path} is not a directory.")
    if not (path / RUN_FILE).exists() and not (path / CELLS).is_dir():
        raise BenchError(f"{path} is not a run directory: it has no {RUN_FILE} and no {CELLS}.")
    return [*_top(path), *_cells(path)]


def _top(path: Path) -> Iterator[Finding]:
    try:
        RunDirectory(path)
    except BenchError as error:
        yield Finding(RUN_FILE, str(error), "see there", damage=True)
    if not (path / RUN_FILE).exists():
        yield Finding(RUN_FILE, "is missing", "the next bench run there writes it", damage=True)
    for name in SummedFolder(path).damaged():
        remedy = "move it away" if name == RUN_FILE else "the next bench run there gathers it anew"
        yield Finding(name, "is damaged", remedy, damage=True)
    for left in leftovers(path, below=False):
        yield Finding(left.name, "was left by a process that died", "the next bench run removes it")
    yield from _stale_table(path)


def _stale_table(path: Path) -> Iterator[Finding]:
    """Whether the table has the rows that the cells have."""
    try:
        table = load_results(path)
    except BenchError:
        return
    found = [folder.rows() for folder in RunDirectory(path).cells() if not folder.damaged()]
    rows = sum(map(len, found))
    if rows != len(table):
        what = f"has {len(table)} rows, the cells have {rows}"
        yield Finding(f"{TABLE}.parquet", what, "the next bench run there gathers them")


def _cells(path: Path) -> Iterator[Finding]:
    try:
        directory = RunDirectory(path)
    except BenchError:
        return
    for folder in directory.cells():
        with directory.claimed(folder.path.name.rpartition("-")[2]) as mine:
            name = folder.path.relative_to(path).as_posix()
            if mine:
                yield from _cell(folder, name)
            else:
                yield Finding(name, "is being worked on by a process", "wait for it")


def _cell(folder: CellFolder, name: str) -> Iterator[Finding]:
    damaged = folder.damaged()
    for file in damaged:
        yield Finding(f"{name}/{file}", "is damaged", AGAIN, damage=True)
    for aside in sorted(folder.path.rglob(f"*{SET_ASIDE}")):
        where = f"{name}/{aside.relative_to(folder.path).as_posix()}"
        yield Finding(where, "was damaged and done anew", "delete it")
    for left in leftovers(folder.path):
        where = f"{name}/{left.name}"
        yield Finding(where, "was left by a process that died", "the next bench run removes it")
    if folder.exists(CHECKPOINT_FILE):
        yield Finding(name, "was interrupted in training", "the same bench run again goes on")
    try:
        rows = folder.rows()
    except DamagedFileError:
        return
    yield from _of_rows(rows, name)


def _of_rows(rows: pd.DataFrame, name: str) -> Iterator[Finding]:
    failed = rows[rows["status"] == "failed"]
    if not failed.empty:
        what = f"{len(failed)} of {len(rows)} rows failed: {failed['reason'].iloc[0]}"
        yield Finding(name, what, "the same bench run with --retry failed tries them again")
    if rows.empty:
        yield Finding(name, "is not finished", "the same bench run again goes on")
