"""The run directory: the files of a run, each replaced as a whole and described by run.json.

Cells lie in folders named after a hash of their content, so the same command finds its cells again.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import Timeout

from bench.errors import BenchError, OutputError, one_line
from bench.store.aggregation import across_seeds
from bench.store.declarations import bounds
from bench.store.schema import (
    ACROSS_SEEDS_FILE,
    CELL_LOCKS,
    CELLS,
    COLUMNS,
    CSV_FILE,
    EXTRACTOR,
    FAILED,
    LOCK_FILE,
    MODEL,
    NOT_APPLICABLE,
    NOT_INSTALLED,
    OK,
    OLD_EXTRACTOR,
    OLDEST_READABLE,
    ROWS_FILE,
    RUN_FILE,
    SCHEMA_VERSION,
    SKIPPED,
    TABLE_FILE,
)
from bench.system.checksums import SUMS_FILE, DamagedFileError, SummedFolder, writing
from bench.system.files import lock, remove_leftovers

if TYPE_CHECKING:
    from bench.metrics.metric import Metric
    from bench.plan.cells import Cell

# Cells whose tables are copied together: small tables cost far more memory than their rows.
BLOCK = 100
_ARROW_TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
SCHEMA = pa.schema([(name, _ARROW_TYPES[kind]) for name, kind in COLUMNS.items()])
_LOG = logging.getLogger(__name__)
_NULLABLE = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}

Row = Mapping[str, Any]


class CellFolder(SummedFolder):
    """The files of one cell."""

    def rows(self) -> pd.DataFrame:
        """Return the cell's rows, an empty table if there are none yet.

        Raises:
            DamagedFileError: the file of rows is damaged.
        """
        return _to_pandas(self.table())

    def table(self) -> pa.Table:
        """Return the cell's rows as an Arrow table; see :meth:`rows`."""
        if not self.exists(ROWS_FILE):
            return SCHEMA.empty_table()
        content = self.read(ROWS_FILE)
        try:
            return _parse(content)
        except (OSError, pa.ArrowException) as error:
            raise DamagedFileError(
                f"{self.path / ROWS_FILE} cannot be read: {one_line(error)}"
            ) from error

    def missing(self, metrics: Iterable[type["Metric"]]) -> list[type["Metric"]]:
        """Return the metrics that have no ``ok`` or ``not_applicable`` row of their version."""
        rows = self.rows()
        rows = rows[rows["status"].isin([OK, NOT_APPLICABLE])]
        done = set(zip(rows["metric"], rows["metric_version"], strict=True))
        return [metric for metric in metrics if (metric.name, metric.version) not in done]

    def skipped(self) -> set[str]:
        """Return the names of the metrics that were skipped, or whose package is not installed."""
        rows = self.rows()
        return set(rows.loc[rows["status"].isin([SKIPPED, NOT_INSTALLED]), "metric"])

    def failed(self) -> bool:
        """Return True if any row has failed; damaged rows have not."""
        try:
            return bool((self.rows()["status"] == FAILED).any())
        except DamagedFileError:
            return False

    def write_rows(self, rows: pd.DataFrame) -> None:
        """Replace the cell's rows."""
        with self.write(ROWS_FILE) as file:
            pq.write_table(pa.Table.from_pandas(rows, SCHEMA, preserve_index=False), file)

    def damaged(self) -> list[str]:
        """Return the names of damaged files, rows that cannot be read among them.

        A file of rows without a checksum is checked too.
        """
        damaged = set(super().damaged())
        try:
            self.table()
        except DamagedFileError:
            damaged.add(ROWS_FILE)
        return sorted(damaged)

    def discard(self) -> None:
        """Delete the cell's rows, and its folder if nothing else is in it."""
        self.remove(ROWS_FILE)
        if self.path.is_dir() and {path.name for path in self.path.iterdir()} <= {SUMS_FILE}:
            (self.path / SUMS_FILE).unlink(missing_ok=True)
            self.path.rmdir()


class RunDirectory:
    """A run directory on disk. Nothing is created before :meth:`begin`."""

    def __init__(self, path: Path) -> None:
        """Check that ``path`` is a run directory of this schema version, or can become one.

        Raises:
            BenchError: ``path`` has another schema version, other contents, or is not a folder.
        """
        self.path = path
        if not path.exists():
            return
        version = _version(path)
        if version not in (None, SCHEMA_VERSION):
            raise BenchError(
                f"{path} was written with schema version {version}, this release writes version "
                f"{SCHEMA_VERSION}: choose another directory with --out, or use the release that "
                "wrote it."
            )

    def begin(self, command: Mapping[str, Any]) -> None:
        """Create the directory if necessary, and append a command to ``run.json``.

        Raises:
            BenchError: the directory cannot be written.
        """
        run: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "commands": []}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            files = SummedFolder(self.path)
            with lock(self.path / LOCK_FILE):
                if (self.path / RUN_FILE).exists():
                    run = json.loads((self.path / RUN_FILE).read_text(encoding="utf-8"))
                run["commands"].append(dict(command))
                with files.write(RUN_FILE) as file:
                    file.write(json.dumps(run, indent=2).encode())
        except (OSError, OutputError) as error:
            cause = error.__cause__ if isinstance(error, OutputError) else error
            assert isinstance(cause, OSError)
            raise BenchError(
                f"The output directory {self.path} cannot be written: {cause.strerror}. "
                "Choose another with --out."
            ) from error

    def cell(self, cell: "Cell") -> CellFolder:
        """Return the folder of a cell. It can be missing."""
        return CellFolder(self.path / CELLS / cell.folder)

    def cells(self) -> list[CellFolder]:
        """Return the folders of all cells, sorted by name."""
        return [CellFolder(path) for path in sorted((self.path / CELLS).glob("*/"))]

    @contextmanager
    def claimed(self, key: str) -> Iterator[bool]:
        """Lock a cell against other processes.

        Args:
            key: key of the cell.

        Yields:
            True while this process holds the lock, False if another process holds it.

        Raises:
            OutputError: the directory cannot be written.
        """
        path = self.path / CELL_LOCKS / f"{key}.lock"
        with ExitStack() as held:
            with writing(path):
                try:
                    held.enter_context(lock(path).acquire(timeout=0))
                    mine = True
                except Timeout:
                    mine = False
            yield mine

    def collect(self) -> pd.DataFrame:
        """Gather the rows of all cells into ``results.parquet`` and ``results.csv``.

        Means over seeds go into ``across_seeds.csv``. Damaged rows are left out with a warning.

        Returns:
            The rows of all cells, one observation per row.
        """
        files = SummedFolder(self.path)
        with lock(self.path / LOCK_FILE):
            remove_leftovers(self.path, below=False)
            table = self._gathered()
            rows = _to_pandas(table)
            with files.write(TABLE_FILE) as file:
                pq.write_table(table, file)
            with files.write(CSV_FILE) as file:
                rows.to_csv(file, index=False)
            with files.write(ACROSS_SEEDS_FILE) as file:
                across_seeds(rows, bounds(self.path)).to_csv(file, index=False)
        return rows

    def _gathered(self) -> pa.Table:
        """Return the rows of all cells."""
        folders, nothing = self.cells(), SCHEMA.empty_table()
        blocks = [
            pa.concat_tables(
                [nothing, *self._tables(folders[start : start + BLOCK])]
            ).combine_chunks()
            for start in range(0, len(folders), BLOCK)
        ]
        return pa.concat_tables([nothing, *blocks])

    def _tables(self, folders: Iterable[CellFolder]) -> Iterator[pa.Table]:
        for folder in folders:
            try:
                yield folder.table()
            except DamagedFileError as error:
                _LOG.warning("Left out: %s. See bench doctor %s.", error, self.path)


def load_results(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the rows of a run directory: a tidy table with one observation per row.

    Args:
        path: the run directory. In rows of an older schema version, missing columns are empty, but
            ``processor`` is filled in from ``run.json`` if possible.

    Returns:
        The columns of :data:`bench.store.schema.SCHEMA`, described in docs/rows.md.

    Raises:
        BenchError: ``path`` is not a run directory, is damaged, or was written by a newer release.
    """
    folder = Path(path)
    if not (folder / RUN_FILE).exists():
        raise BenchError(f"{folder} is not a run directory: it has no {RUN_FILE}.")
    version = _version(folder)
    if version is None or not OLDEST_READABLE <= version <= SCHEMA_VERSION:
        raise BenchError(
            f"{folder} was written with schema version {version}, this release reads versions "
            f"{OLDEST_READABLE} to {SCHEMA_VERSION}: use the release that wrote it."
        )
    table = folder / TABLE_FILE
    if not table.exists():
        return frame([])
    try:
        rows = _to_pandas(_parse(SummedFolder(folder).read(TABLE_FILE)))
    except (OSError, pa.ArrowException, DamagedFileError) as error:
        raise BenchError(
            f"{table} cannot be read ({one_line(error)}): delete it and repeat the command that "
            "wrote the run, which gathers it again from the cells."
        ) from error
    return _with_processors(rows, folder)


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Return rows as a table with all columns of the schema.

    Args:
        rows: values by column. Missing columns are empty, a missing ``kind`` is filled in.

    >>> frame([{"model": "esvae", "value": 0.5}])[["model", "value", "kind"]].values.tolist()
    [['esvae', 0.5, 'model']]
    """
    return _to_pandas(_with_kinds(pa.Table.from_pylist(list(map(dict, rows)), schema=SCHEMA)))


def _parse(content: bytes) -> pa.Table:
    """Read a Parquet file of rows, which can lack columns of the schema."""
    return _with_kinds(pq.read_table(pa.BufferReader(content), schema=SCHEMA))


def _with_kinds(table: pa.Table) -> pa.Table:
    """Fill ``kind`` where it is missing, as in rows of earlier releases."""
    old = pc.if_else(pc.equal(table["model"], OLD_EXTRACTOR), EXTRACTOR, MODEL)
    kinds = pc.coalesce(table["kind"], old, MODEL)
    return table.set_column(SCHEMA.get_field_index("kind"), "kind", kinds)


def _with_processors(rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Fill ``processor`` where it is missing, as in rows of earlier releases.

    Rows of a reference do not name their command, so all of its commands must have the same one.
    """
    lacking = rows["processor"].isna()
    if not lacking.any():
        return rows
    known = _processors(folder)
    (only,) = set(known.values()) if len(set(known.values())) == 1 else (None,)
    filled = rows["run_id"].map(known).where(rows["run_id"].notna(), only)
    return rows.assign(processor=rows["processor"].where(~lacking, filled))


def _processors(folder: Path) -> dict[str, str | None]:
    """Return the processors of the commands in ``run.json`` by run ID, None if unknown."""
    try:
        commands = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["commands"]
        return {
            command["run_id"]: command.get("environment", {}).get("processor")
            for command in commands
        }
    except (AttributeError, KeyError, TypeError):
        return {}


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas(types_mapper=_NULLABLE.get)


def _version(path: Path) -> int | None:
    """Return the schema version of a run directory.

    Returns:
        The version in ``run.json``; None if the folder is empty or has cells but no ``run.json``.

    Raises:
        BenchError: not a run directory.
    """
    run_file = path / RUN_FILE
    if not path.is_dir():
        raise BenchError(f"The output directory {path} is not a directory.")
    if not run_file.exists():
        names = {entry.name for entry in path.iterdir() if not entry.name.startswith(".")}
        # The checksum of the first file is written before the file.
        if names - {SUMS_FILE} and CELLS not in names:
            raise BenchError(
                f"The output directory {path} is not empty and not a run directory "
                f"(it has no {RUN_FILE}): choose another with --out."
            )
        return None
    try:
        run = json.loads(run_file.read_text(encoding="utf-8"))
        version, _ = int(run["schema_version"]), list(run["commands"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(
            f"{run_file} cannot be read ({error}): choose another --out, or move this file away; "
            "the cells in the directory are found without it."
        ) from error
    return version
