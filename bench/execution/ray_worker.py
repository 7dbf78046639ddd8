"""What runs on a node of a cluster: a cell, in a folder there, of which all is sent home."""

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
    """All that a node needs for a cell.

    Attributes:
        cell: to run.
        dataset: of the cell; None if it cannot be had.
        work: as it is at home.
        device: as asked.
        files: what the cell has so far, by name.
        cached: what is kept once for all cells of a dataset: trained extractors.
    """

    cell: Cell
    dataset: Dataset | None
    work: Work
    device: str
    files: Files
    cached: Files

    def run(self, send: Send) -> None:
        """Run what is missing of the cell; what is written and told goes through ``send``."""
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
        """The images, fetched once a node.

        Raises:
            DataUnavailableError: they cannot be had here, or are not those of the plan.
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
    """Write those of the files that are not there, each whole."""
    for name, content in files.items():
        if not (folder / name).exists():
            with atomic(folder / name) as file:
                file.write(content)


def _content(folder: Path) -> dict[str, bytes]:
    """All files below a folder, in the order in which they were written, without locks."""
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
    """Run a parcel, with a queue as the way home; each message names the attempt."""

    def send(*message: Any) -> None:
        messages.put((attempt, *message))

    parcel.run(send)
    send("over")
