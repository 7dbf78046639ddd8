"""The run directory: atomic, content-addressed, self-describing."""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import Timeout

from bench.errors import BenchError, OutputError, one_line
from bench.store.aggregation import across_seeds
from bench.system.checksums import SUMS_FILE, DamagedFileError, SummedFolder, writing
from bench.system.files import lock, remove_leftovers

if TYPE_CHECKING:
    from bench.metrics.metric import Metric
    from bench.plan import Cell

SCHEMA_VERSION = 2
OLDEST_READABLE = 1
RUN_FILE = "run.json"
LOCK_FILE = ".lock"
CELLS = "cells"
CELL_LOCKS = ".locks"
ROWS_FILE = "rows.parquet"
TABLE = "results"
BLOCK = 100
# What a dataset_variant other than "complete" means.
INCOMPLETE = {
    "subset": "a subset of the dataset",
    "substitute": "a local file or folder in the dataset's place",
}

SCHEMA = pa.schema(
    [
        ("schema_version", pa.int64()),
        ("run_id", pa.string()),
        ("cell_key", pa.string()),
        ("model", pa.string()),
        ("model_version", pa.string()),
        ("backend", pa.string()),
        ("dataset", pa.string()),
        ("dataset_variant", pa.string()),
        ("dataset_fingerprint", pa.string()),
        ("train_images", pa.int64()),
        ("protocol", pa.string()),
        ("protocol_hash", pa.string()),
        ("seed", pa.int64()),
        ("epoch", pa.int64()),
        ("epoch_selection", pa.string()),
        ("split", pa.string()),
        ("metric", pa.string()),
        ("metric_version", pa.string()),
        ("value", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("n", pa.int64()),
        ("layer", pa.string()),
        ("time_step", pa.int64()),
        ("noise_kind", pa.string()),
        ("noise_level", pa.float64()),
        ("extractor", pa.string()),
        ("extractor_sha256", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("higher_is_better", pa.bool_()),
        ("unit", pa.string()),
        ("duration_s", pa.float64()),
        ("device", pa.string()),
        ("version", pa.string()),
        ("git_commit", pa.string()),
        ("created_at", pa.string()),
    ]
)

_LOG = logging.getLogger(__name__)
_NULLABLE = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}

Row = Mapping[str, Any]


class CellFolder(SummedFolder):
    """The files of one cell."""

    def rows(self) -> pd.DataFrame:
        """The cell's rows; empty if it has none yet.

        Raises:
            DamagedFileError: they are not what was written.
        """
        return _frame(self.table())

    def table(self) -> pa.Table:
        """The same as an Arrow table."""
        if not self.exists(ROWS_FILE):
            return SCHEMA.empty_table()
        content = pa.BufferReader(self.read(ROWS_FILE))
        try:
            return pq.read_table(content, schema=SCHEMA)
        except (OSError, pa.ArrowException) as error:
            raise DamagedFileError(
                f"{self.path / ROWS_FILE} cannot be read: {one_line(error)}"
            ) from error

    def missing(self, metrics: Iterable[type["Metric"]]) -> list[type["Metric"]]:
        """Metrics that have no row yet, or only failed, skipped or another version's ones."""
        rows = self.rows()
        rows = rows[rows["status"].isin(["ok", "not_applicable"])]
        done = set(zip(rows["metric"], rows["metric_version"], strict=True))
        return [metric for metric in metrics if (metric.name, metric.version) not in done]

    def skipped(self) -> set[str]:
        """Names of the metrics that were skipped."""
        rows = self.rows()
        return set(rows.loc[rows["status"] == "skipped", "metric"])

    def failed(self) -> bool:
        """Whether any row tells of a failure."""
        try:
            return bool((self.rows()["status"] == "failed").any())
        except DamagedFileError:
            return False

    def write_rows(self, rows: pd.DataFrame) -> None:
        """Replace the cell's rows."""
        with self.write(ROWS_FILE) as file:
            pq.write_table(pa.Table.from_pandas(rows, SCHEMA, preserve_index=False), file)

    def damaged(self) -> list[str]:
        """See the base class; rows that cannot be read count too, with or without a sum."""
        found = set(super().damaged())
        try:
            self.table()
        except DamagedFileError:
            found.add(ROWS_FILE)
        return sorted(found)

    def discard(self) -> None:
        """Delete the rows of a cell that has nothing else, and its folder."""
        self.remove(ROWS_FILE)
        if self.path.is_dir() and {path.name for path in self.path.iterdir()} <= {SUMS_FILE}:
            (self.path / SUMS_FILE).unlink(missing_ok=True)
            self.path.rmdir()


class RunDirectory:
    """A run directory on disk; nothing is created before :meth:`begin`."""

    def __init__(self, path: Path) -> None:
        """Check that ``path`` is a run directory of this schema, or can become one.

        Raises:
            BenchError: another schema, something else's folder, or a place that is no folder.
        """
        self.path = path
        if not path.exists():
            return
        version = _version(path)
        if version not in (None, SCHEMA_VERSION):
            raise BenchError(
                f"{path} was written with schema version {version}, this is version "
                f"{SCHEMA_VERSION}: choose another directory with --out, or use the release that "
                "wrote it."
            )

    def begin(self, command: Mapping[str, Any]) -> None:
        """Create what is missing and note down the command that now runs.

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
        """The folder of a cell, which may not exist yet."""
        return CellFolder(self.path / CELLS / cell.folder)

    def cells(self) -> list[CellFolder]:
        """The folders of all cells, in the order of their names."""
        return [CellFolder(path) for path in sorted((self.path / CELLS).glob("*/"))]

    @contextmanager
    def claimed(self, key: str) -> Iterator[bool]:
        """Keep the cell of a key from other processes; says whether one of them has it already.

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

        What seeds say together goes into ``across_seeds.csv``. Damaged rows are left out, with a
        warning.
        """
        files = SummedFolder(self.path)
        with lock(self.path / LOCK_FILE):
            remove_leftovers(self.path, below=False)
            table = self._gathered()
            rows = _frame(table)
            with files.write(f"{TABLE}.parquet") as file:
                pq.write_table(table, file)
            with files.write(f"{TABLE}.csv") as file:
                rows.to_csv(file, index=False)
            with files.write("across_seeds.csv") as file:
                across_seeds(rows).to_csv(file, index=False)
        return rows

    def _gathered(self) -> pa.Table:
        """The rows of all cells; copied together at times, as small tables cost far more memory."""
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
    """The tidy table of a run directory, one observation a row (see docs of the row schema).

    Of an older schema, what its rows lack is missing.

    Raises:
        BenchError: not a run directory, a damaged one, or one that a newer release wrote.
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
    files, table = SummedFolder(folder), folder / f"{TABLE}.parquet"
    if not table.exists():
        return frame([])
    try:
        return _frame(pq.read_table(pa.BufferReader(files.read(table.name)), schema=SCHEMA))
    except (OSError, pa.ArrowException, DamagedFileError) as error:
        raise BenchError(
            f"{table} cannot be read ({one_line(error)}): delete it, and the command that wrote "
            "the run gathers it anew from its cells."
        ) from error


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Rows as a table with all columns of the schema; what a row lacks is missing."""
    return _frame(pa.Table.from_pylist([dict(row) for row in rows], schema=SCHEMA))


def _frame(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas(types_mapper=_NULLABLE.get)


def _version(path: Path) -> int | None:
    """The schema version of a run directory; None for an empty folder, or one that lost it.

    Raises:
        BenchError: not a run directory.
    """
    run_file = path / RUN_FILE
    if not path.is_dir():
        raise BenchError(f"The output directory {path} is not a directory.")
    if not run_file.exists():
        names = {found.name for found in path.iterdir() if not found.name.startswith(".")}
        # The sum of the first file comes before the file.
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
            "the cells beside it are found without it."
        ) from error
    return version
