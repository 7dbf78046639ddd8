"""Run a cell on a node of a Ray cluster, in a temporary folder whose content is sent back."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from bench.datasets.dataset import Dataset, ImageData
from bench.errors import DataUnavailableError
from bench.execution.remote_progress import MessageReporter
from bench.execution.run_cell import run_cell
from bench.execution.run_context import DataCache, RunContext
from bench.plan.cells import Cell
from bench.store.run_directory import CellFolder, RunDirectory
from bench.store.schema import LOG_FILE
from bench.system.devices import resolve_device
from bench.system.files import atomic, lock
from bench.system.memory import keep_freed_memory, spare_existing_objects
from bench.system.paths import TrainedFile, cache_folder, safe_name
from bench.system.progress import WorkReporter
from bench.system.signals import Interrupted
from bench.tracking.cell_trackers import CellTrackers, Tracking
from bench.tracking.tracker import TrackedCell

LOCK_FILE = "datasets.lock"
Files = Mapping[str, bytes]
Send = Callable[..., None]


@dataclass(frozen=True)
class RemoteCell:
    """A cell with everything that a node needs to run it.

    Attributes:
        cell: cell to run.
        dataset: dataset of the cell; None if it is unavailable.
        context: context of the run, with the paths of the driver's machine.
        device: name of the device, as requested.
        files: content of the cell's files so far, by name.
        cached: content of files that all cells of a dataset share, by name: trained extractors.
        trained: content of the reference's files of trained weights, by name of the weights.
    """

    cell: Cell
    dataset: Dataset | None
    context: RunContext
    device: str
    files: Files
    cached: Files
    trained: Files

    def run(self, send: Send) -> None:
        """Do what is missing of the cell, and send every file and every progress report."""
        keep_freed_memory()
        spare_existing_objects()
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            directory = _SentDirectory(Path(scratch) / "run", self.cell.key, send)
            folder = directory.cell(self.cell)
            put(folder.path, self.files)
            # Later cells read what this cell adds to the cache, so it starts with an empty one.
            first = self.cell.is_prerequisite
            cache = Path(scratch) / "cache" if first else cache_folder()
            put(cache, self.cached)
            trained = self._put_trained(Path(scratch) / "trained")
            resources = replace(self.context.resources, cache=cache, trained=trained)
            context = replace(self.context, directory=directory, resources=resources)
            if context.tracking.names:
                tracking = _SentTracking(
                    context.tracking.directory, context.tracking.names, send=send
                )
                context = replace(context, tracking=tracking)
            device = resolve_device(self.device)
            try:
                run_cell(self.cell, context, device, self._load, partial(_reporter, send))
            except KeyboardInterrupt as stop:
                send("saved", stop.saved if isinstance(stop, Interrupted) else "")
            if first:
                send("cached", _content(cache))
            if (folder.path / LOG_FILE).exists():
                send("log", (folder.path / LOG_FILE).read_text(encoding="utf-8"))

    def _put_trained(self, folder: Path) -> dict[str, TrainedFile]:
        """Write the reference's files of trained weights, and return them by name."""
        put(folder, {safe_name(name): content for name, content in self.trained.items()})
        given = self.context.resources.trained
        return {n: replace(given[n], path=folder / safe_name(n)) for n in self.trained}

    def _load(self, cell: Cell) -> ImageData:
        """Return the images of the cell, downloaded once per node.

        Raises:
            DataUnavailableError: if the dataset is unavailable here, or differs from the plan's.
        """
        assert self.dataset is not None
        assert cell.info is not None
        with lock(cache_folder() / LOCK_FILE):
            if self.dataset.missing():
                self.dataset.fetch()
        if self.dataset.info().fingerprint != cell.info.fingerprint:
            raise DataUnavailableError(
                f"the {cell.dataset} on this node differs from the one that the run was planned for"
            )
        return DataCache({cell.dataset: self.dataset}).load(cell)


def put(folder: Path, files: Files) -> None:
    """Write the files that do not exist yet, each atomically."""
    for name, content in files.items():
        if not (folder / name).exists():
            with atomic(folder / name) as file:
                file.write(content)


def run_remotely(remote: RemoteCell, messages: Any, attempt: str) -> None:
    """Run a cell as a task of Ray.

    Args:
        remote: cell with everything that it needs.
        messages: Ray queue to the driver.
        attempt: name of the attempt, with which each message begins.
    """

    def send(*message: Any) -> None:
        messages.put((attempt, *message))

    remote.run(send)
    send("over")


def _content(folder: Path) -> dict[str, bytes]:
    """Read all files below a folder but locks, in the order in which they were written."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    paths = [path for path in paths if not path.name.startswith(".")]
    paths.sort(key=lambda path: path.stat().st_mtime_ns)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _reporter(send: Send) -> WorkReporter:
    send("started")
    return MessageReporter(send)


class _SentDirectory(RunDirectory):
    """A run directory that sends the files of one cell."""

    def __init__(self, path: Path, key: str, send: Send) -> None:
        super().__init__(path)
        self._key = key
        self._send = send

    def cell(self, cell: Cell) -> CellFolder:
        folder = super().cell(cell)
        return _SentFolder(folder.path, self._send) if cell.key == self._key else folder


@dataclass(frozen=True)
class _SentTracking(Tracking):
    """The trackers of the driver's machine, to which their calls are sent."""

    send: Send = field(kw_only=True)

    def trackers(self, cell: TrackedCell, warn: Callable[[str], None]) -> CellTrackers:
        return _SentTrackers(cell, self.send)


class _SentTrackers(CellTrackers):
    """Sends each call for a cell's trackers."""

    def __init__(self, cell: TrackedCell, send: Send) -> None:
        super().__init__(cell, {}, lambda text: None)
        self._send = send

    def begin(self, seen: int) -> None:
        self._each("begin", seen)

    def _each(self, method: str, *arguments: Any) -> None:
        self._send("tracked", self._cell, method, arguments)


class _SentFolder(CellFolder):
    """A cell's folder that sends each file that is written, and each name that is removed."""

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
