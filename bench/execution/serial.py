"""Cells one after the other in this process."""

import time
from collections.abc import Iterable
from functools import partial

import pandas as pd
import torch

from bench.datasets.base import Dataset, ImageData
from bench.execution.dispatch import cell_run
from bench.metrics.base import Metric
from bench.plan import Cell, Plan
from bench.progress import Reporter
from bench.protocol import Protocol
from bench.roots import Resources
from bench.store import RunDirectory


def run_serially(
    plan: Plan,
    directory: RunDirectory,
    metrics: dict[str, type[Metric]],
    device: torch.device,
    run_id: str,
    reporter: Reporter,
    resources: Resources,
) -> pd.DataFrame:
    """Run what is missing of a plan's cells, and return the rows of all of them.

    ``results.parquet`` and ``results.csv`` are brought up to date after each cell.
    """
    data = DataCache(plan.datasets)
    tables = []
    for index, cell in enumerate(plan.cells, 1):
        if cell.info is not None:
            directory.cell(cell.without_data()).remove()
        run = cell_run(
            cell,
            metrics,
            folder=directory.cell(cell),
            device=device,
            run_id=run_id,
            reporter=reporter,
            resources=resources,
        )
        done = not run.missing()
        reporter.cell_started(index, len(plan.cells), cell.title)
        started = time.perf_counter()
        rows = run.run(partial(data.load, cell))
        outcome = "already done" if done else summarise_status(rows)
        reporter.cell_ended(outcome, time.perf_counter() - started)
        tables.append(rows)
        if not done:
            directory.collect()
    directory.collect()
    return pd.concat(tables, ignore_index=True)


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
