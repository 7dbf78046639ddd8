"""Steps that every executor takes with a cell, wherever it runs."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pandas as pd
import torch

from bench.datasets.dataset import Dataset, ImageData
from bench.execution.cell import CellRun
from bench.execution.dispatch import cell_run
from bench.metrics.metric import Metric
from bench.plan import Cell
from bench.protocol import Protocol
from bench.store.run_directory import RunDirectory
from bench.system.checksums import DamagedFileError
from bench.system.devices import free_memory
from bench.system.paths import Resources
from bench.system.progress import WorkReporter
from bench.training.checkpoints import Interval

Load = Callable[[Cell], ImageData]
ALREADY_DONE = "already done"


@dataclass(frozen=True)
class Work:
    """The state that all cells of a run share.

    Attributes:
        directory: run directory.
        metrics: classes of the metrics of models, by name.
        run_id: identifier of the command, for the rows.
        resources: places of weights and of the cache.
        interval: interval between checkpoints.
    """

    directory: RunDirectory
    metrics: dict[str, type[Metric]]
    run_id: str
    resources: Resources
    interval: Interval

    def run(
        self,
        cell: Cell,
        device: torch.device,
        load: Load,
        started: Callable[[], WorkReporter],
    ) -> bool:
        """Run what is missing of a cell, unless another process works on it.

        Args:
            cell: cell to run.
            device: device of the model.
            load: function that loads a cell's images.
            started: function called when the cell begins; returns the receiver of its progress.

        Returns:
            True if the cell has ended, False if another process works on it.

        Raises:
            OutputError: the run directory cannot be written.
            KeyboardInterrupt: the run received a signal.
        """
        with self.directory.claimed(cell.key) as mine:
            if mine:
                self._run(self._cell_run(cell, device, started()), load)
            return mine

    def settled(self, cell: Cell, device: torch.device) -> bool:
        """Return True if the cell needs no further work on a worker.

        The caller must have claimed the cell. Damaged files are set aside first, and a cell that
        cannot run gets its rows.
        """
        run = self._cell_run(cell, device, WorkReporter())
        self._discard_without_data(cell)
        if _done(run):
            return True
        run.tidy()
        if cell.skipped:
            _outcome(run, _nothing)
        return bool(cell.skipped)

    def fail(self, cell: Cell, device: torch.device, reason: str) -> None:
        """Record that a cell's process died.

        Args:
            cell: cell of the process.
            device: device of the model.
            reason: reason for the rows.
        """
        with self.directory.claimed(cell.key) as mine:
            if mine:
                run = self._cell_run(cell, device, WorkReporter())
                run.tidy()
                run.fail(reason)

    def _cell_run(self, cell: Cell, device: torch.device, reporter: WorkReporter) -> CellRun:
        return cell_run(
            cell,
            self.metrics,
            folder=self.directory.cell(cell),
            device=device,
            run_id=self.run_id,
            reporter=reporter,
            resources=self.resources,
            interval=self.interval,
        )

    def _run(self, run: CellRun, load: Load) -> None:
        self._discard_without_data(run.cell)
        started = time.perf_counter()
        outcome = ALREADY_DONE if _done(run) else _outcome(run, load)
        run.reporter.ended(outcome, time.perf_counter() - started)

    def _discard_without_data(self, cell: Cell) -> None:
        if cell.info is not None:
            self.directory.cell(cell.without_data()).discard()


def _nothing(cell: Cell) -> ImageData:
    raise AssertionError(f"{cell.title} was skipped: it needs no images")


def _done(run: CellRun) -> bool:
    try:
        return not run.missing()
    except DamagedFileError:
        return False


def _outcome(run: CellRun, load: Load) -> str:
    damaged = run.tidy()
    status = summarise_status(run.run(lambda: load(run.cell)))
    if status != "ok":
        free_memory(run.device)
    return f"{status} (damaged and done again: {', '.join(damaged)})" if damaged else status


def summarise_status(rows: pd.DataFrame) -> str:
    """Return ``ok``, or the status and the reasons of what failed or was skipped."""
    for status, everywhere in (("failed", False), ("skipped", True)):
        matching = rows["status"] == status
        if matching.all() if everywhere else matching.any():
            reasons: Iterable[str] = rows[matching]["reason"].unique()
            return f"{status}: {'; '.join(reasons)}"
    return "ok"


class DataCache:
    """Keeps the images that were loaded last: cells of one dataset come one after the other."""

    def __init__(self, datasets: dict[str, Dataset]) -> None:
        self._datasets = datasets
        self._key: tuple[object, ...] | None = None
        self._images: ImageData | None = None

    def load(self, cell: Cell) -> ImageData:
        """Return the cell's images."""
        key = (cell.dataset, *_preprocessing(cell.resolved))
        if self._images is None or key != self._key:
            self._images = self._datasets[cell.dataset].load(cell.resolved)
            self._key = key
        return self._images


def _preprocessing(protocol: Protocol) -> tuple[object, ...]:
    """Return the values of a protocol that the images in memory depend on."""
    return (
        protocol.image_size,
        protocol.center_crop,
        protocol.interpolation,
        protocol.train_images,
        protocol.test_images,
    )
