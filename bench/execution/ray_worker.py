"""A cell on a node of a cluster: it runs in a local folder, whose files are sent to the driver."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from bench.datasets.dataset import Dataset, ImageData
from bench.errors import DataUnavailableError
from bench.execution.cell_log import LOG_FILE
from bench.execution.remote_progress import MessageReporter
from bench.execution.run_context import DataCache, Work
from bench.plan import Cell, ExtractorCell
from bench.store.run_directory import CellFolder, RunDirectory
from bench.system.devices import resolve_device
from bench.system.files import atomic, lock
from bench.system.garbage import spare_existing_objects
from bench.system.memory import keep_freed_memory
from bench.system.paths import cache_folder
from bench.system.progress import WorkReporter
from bench.system.signals import Interrupted

LOCK_FILE = "datasets.lock"
Files = Mapping[str, bytes]
Send = Callable[..., None]


@dataclass(frozen=True)
class Parcel:
    """Everything that a node needs for a cell.

    Attributes:
        cell: cell to run.
        dataset: dataset of the cell; None if it is unavailable.
        work: what all cells of the run share, as on the driver.
        device: requested device.
        files: files that the cell has so far, by name.
        cached: files shared by all cells of a dataset: trained extractors.
    """

    cell: Cell
    dataset: Dataset | None
    work: Work
    device: str
    files: Files
    cached: Files

    def run(self, send: Send) -> None:
        """Run what is missing of the cell; files and progress go through ``send``."""
        keep_freed_memory()
        spare_existing_objects()
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            directory = _SentDirectory(Path(scratch) / "run", self.cell.key, send)
            folder = directory.cell(self.cell)
            put(folder.path, self.files)
            # An extractor's cell computes what others only read, so it starts from nothing.
            alone = isinstance(self.cell, ExtractorCell)
            cache = Path(scratch) / "cache" if alone else cache_folder()
            put(cache, self.cached)
            resources = replace(self.work.resources, cache=cache)
            work = replace(self.work, directory=directory, resources=resources)
            try:
                work.run(
                    self.cell, resolve_device(self.device), self._load, partial(_reporter, send)
                )
            except KeyboardInterrupt as stop:
                send("saved", stop.saved if isinstance(stop, Interrupted) else "")
            if alone:
                send("cached", _content(cache))
            if (folder.path / LOG_FILE).exists():
                send("log", (folder.path / LOG_FILE).read_text(encoding="utf-8"))

    def _load(self, cell: Cell) -> ImageData:
        """Return the images, downloaded once per node.

        Raises:
            DataUnavailableError: they are unavailable here, or differ from the planned ones.
        """
        assert self.dataset is not None
        assert cell.info is not None
        with lock(cache_folder() / LOCK_FILE):
            if self.dataset.missing():
                self.dataset.fetch()
        if self.dataset.info().fingerprint != cell.info.fingerprint:
            raise DataUnavailableError(
                f"the {cell.dataset} of this node is not the one that the run was planned with"
            )
        return DataCache({cell.dataset: self.dataset}).load(cell)


def put(folder: Path, files: Files) -> None:
    """Write the files that are missing, each whole."""
    for name, content in files.items():
        if not (folder / name).exists():
            with atomic(folder / name) as file:
                file.write(content)


def _content(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder except locks, in the order in which they were written."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    paths = [path for path in paths if not path.name.startswith(".")]
    paths.sort(key=lambda path: path.stat().st_mtime_ns)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _reporter(send: Send) -> WorkReporter:
    send("started")
    return MessageReporter(send)


class _SentDirectory(RunDirectory):
    def __init__(self, path: Path, key: str, send: Send) -> None:
        super().__init__(path)
        self._key = key
        self._send = send

    def cell(self, cell: Cell) -> CellFolder:
        folder = super().cell(cell)
        return _SentFolder(folder.path, self._send) if cell.key == self._key else folder


class _SentFolder(CellFolder):
    def __init__(self, path: Path, send: Send) -> None:
        super().__init__(path)
        self._send = send

    @contextmanager
    def write(self, name: str) -> Iterator[BytesIO]:
        with super().write(name) as file:
            yield file
        self._send("written", name, self.read(name))

    def remove(self, name: str) -> None:
        super().remove(name)
        self._send("removed", name)


def run_parcel(parcel: Parcel, messages: Any, attempt: str) -> None:
    """Run a parcel on this node and send its files and progress through a queue.

    Args:
        parcel: everything that the cell needs.
        messages: queue to the driver.
        attempt: name of the attempt, which each message carries.
    """

    def send(*message: Any) -> None:
        messages.put((attempt, *message))

    parcel.run(send)
    send("over")
