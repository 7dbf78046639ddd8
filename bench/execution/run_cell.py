"""Run one cell, wherever it runs: claim it, do what is missing, report how it ended."""

import time
from collections.abc import Callable, Iterable

import pandas as pd
import torch

from bench.datasets.dataset import ImageData
from bench.execution.cell import CellRun
from bench.execution.dataset_cell import DatasetRun
from bench.execution.extractor_cell import ExtractorRun
from bench.execution.images_cell import ImagesRun
from bench.execution.model_cell import ModelRun
from bench.execution.run_context import RunContext
from bench.execution.weights_cell import WeightsRun
from bench.plan.cells import Cell, DatasetCell, ExtractorCell, ImagesCell, WeightsCell
from bench.store.schema import FAILED, OK, SKIPPED
from bench.system.checksums import DamagedFileError
from bench.system.devices import free_memory
from bench.system.progress import WorkReporter

Load = Callable[[Cell], ImageData]
ALREADY_DONE = "already done"
_RUNS: dict[type[Cell], type[CellRun]] = {
    Cell: ModelRun,
    ExtractorCell: ExtractorRun,
    DatasetCell: DatasetRun,
    ImagesCell: ImagesRun,
    WeightsCell: WeightsRun,
}


def run_cell(
    cell: Cell,
    context: RunContext,
    device: torch.device,
    load: Load,
    started: Callable[[], WorkReporter],
) -> bool:
    """Do what is missing of a cell, unless another process is working on it.

    Args:
        cell: cell to run.
        context: context of the run.
        device: device of the model.
        load: function that returns the cell's images.
        started: function that is called when the cell begins, and returns the receiver of its
            progress.

    Returns:
        True if the cell has ended; False if another process is working on it.

    Raises:
        OutputError: if the run directory cannot be written.
        KeyboardInterrupt: if a signal stops the run.
    """
    with context.directory.claimed(cell.key) as mine:
        if mine:
            _run(_cell_run(cell, context, device, started()), load)
        return mine


def settle(cell: Cell, context: RunContext, device: torch.device) -> bool:
    """Prepare a cell that the caller has claimed for being run elsewhere.

    Damaged files are set aside. A cell that cannot run gets its rows.

    Args:
        cell: cell to prepare.
        context: context of the run.
        device: device of the model.

    Returns:
        True if nothing is left to run.
    """
    run = _cell_run(cell, context, device, WorkReporter())
    _discard_without_data(run)
    if _done(run):
        return True
    run.tidy()
    if cell.skipped:
        _outcome(run, _no_images)
    return bool(cell.skipped)


def is_done(cell: Cell, context: RunContext, device: torch.device) -> bool:
    """Return True if nothing is left to run of a cell.

    Args:
        cell: cell to check.
        context: context of the run.
        device: device of the model.
    """
    return _done(_cell_run(cell, context, device, WorkReporter()))


def fail(cell: Cell, context: RunContext, device: torch.device, reason: str) -> None:
    """Record that the process of a cell died.

    Args:
        cell: cell that failed.
        context: context of the run.
        device: device of the model.
        reason: how the process ended.
    """
    with context.directory.claimed(cell.key) as mine:
        if mine:
            run = _cell_run(cell, context, device, WorkReporter())
            run.tidy()
            run.fail(reason)


def summarise_status(rows: pd.DataFrame) -> str:
    """Return ``ok``, or status and reasons if any row failed or all rows were skipped."""
    for status, everywhere in ((FAILED, False), (SKIPPED, True)):
        matching = rows["status"] == status
        if matching.all() if everywhere else matching.any():
            reasons: Iterable[str] = rows[matching]["reason"].unique()
            return f"{status}: {'; '.join(reasons)}"
    return OK


def _cell_run(
    cell: Cell, context: RunContext, device: torch.device, reporter: WorkReporter
) -> CellRun:
    return _RUNS[type(cell)](cell, context, device, reporter)


def _run(run: CellRun, load: Load) -> None:
    _discard_without_data(run)
    started = time.perf_counter()
    outcome = ALREADY_DONE if _done(run) else _outcome(run, load)
    run.reporter.ended(outcome, time.perf_counter() - started)


def _discard_without_data(run: CellRun) -> None:
    """Delete the rows that say that the dataset was unavailable, if it is available now."""
    if run.cell.info is not None:
        run.context.directory.cell(run.cell.without_data()).discard()


def _done(run: CellRun) -> bool:
    try:
        return not run.missing()
    except DamagedFileError:
        return False


def _outcome(run: CellRun, load: Load) -> str:
    damaged = run.tidy()
    status = summarise_status(run.run(lambda: load(run.cell)))
    if status != OK:
        free_memory(run.device)
    return f"{status} (damaged and done again: {', '.join(damaged)})" if damaged else status


def _no_images(cell: Cell) -> ImageData:
    raise AssertionError(f"{cell.title} was skipped: it needs no images")
