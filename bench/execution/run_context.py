"""What every executor does with a cell, wherever it runs."""

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
    """What it takes, beside the cell, to run one.

    Attributes:
        directory: where all cells are kept.
        metrics: classes of the metrics of models, by name.
        run_id: of the command, for the rows.
        resources: where the metrics find weights and keep what they compute once.
        interval: how often a checkpoint is written.
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
            cell: to run.
            device: where the model lives.
            load: gives a cell's images.
            started: is called when the cell begins, and gives what is told of the rest.

        Returns:
            Whether the cell has ended; False if another process has it.

        Raises:
            OutputError: the run directory cannot be written.
            KeyboardInterrupt: the run was told to stop.
        """
        with self.directory.claimed(cell.key) as mine:
            if mine:
                self._run(self._cell_run(cell, device, started()), load)
            return mine

    def settled(self, cell: Cell, device: torch.device) -> bool:
        """Whether nothing is left to be done elsewhere; the caller has claimed the cell.

        What is damaged is set aside first, and a cell that cannot run gets its rows.
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
        """Put down that a cell's process died."""
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
    """``ok``, or the status and the reasons of what failed or of a cell that was skipped."""
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
        """The cell's images."""
        key = (cell.dataset, *_preprocessing(cell.resolved))
        if self._images is None or key != self._key:
            self._images = self._datasets[cell.dataset].load(cell.resolved)
            self._key = key
        return self._images


def _preprocessing(protocol: Protocol) -> tuple[object, ...]:
    """What of a protocol the images in memory depend on."""
    return (
        protocol.image_size,
        protocol.center_crop,
        protocol.interpolation,
        protocol.train_images,
        protocol.test_images,
    )
