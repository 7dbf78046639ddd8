"""One cell from start to end: what is missing, what comes of it, and what went wrong."""

import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from bench import registry
from bench.datasets.base import ImageData
from bench.devices import full_precision
from bench.errors import one_line
from bench.execution.rows import CellRows
from bench.files import atomic
from bench.metrics.base import Metric
from bench.metrics.extractors.base import Setting
from bench.plan import Cell
from bench.progress import Reporter
from bench.roots import Resources
from bench.store import CellFolder, Row

ERROR_FILE = "error.log"


@dataclass(frozen=True)
class CellRun(ABC):
    """Runs one cell in this process.

    Attributes:
        cell: what to run.
        folder: where it is kept.
        metrics: classes of the metrics to observe, by name.
        device: where the model lives.
        run_id: of the command, for the rows.
        reporter: is told of the progress.
        resources: where the metrics find weights and keep what they compute once.
    """

    cell: Cell
    folder: CellFolder
    metrics: dict[str, type[Metric]]
    device: torch.device
    run_id: str
    reporter: Reporter
    resources: Resources

    @property
    def rows(self) -> CellRows:
        """What makes and keeps the cell's rows."""
        return CellRows(self.cell, self.folder, tuple(self.metrics), self.device, self.run_id)

    def run(self, load: Callable[[], ImageData]) -> pd.DataFrame:
        """Do what is missing, and return the cell's rows. A failure becomes rows with its reason.

        Args:
            load: gives the cell's images; called only if something is missing.
        """
        missing = self.missing()
        if not missing:
            return self.folder.rows()
        if self.cell.skipped:
            return self.rows.write(
                missing, self.rows.everywhere(missing, "skipped", self.cell.skipped)
            )
        (self.folder.path / ERROR_FILE).unlink(missing_ok=True)
        started = time.perf_counter()
        try:
            with full_precision():
                rows = self._observe(missing, load())
        except Exception as error:
            rows = self.rows.everywhere(missing, "failed", one_line(error))
            with atomic(self.folder.path / ERROR_FILE) as file:
                file.write(traceback.format_exc().encode())
        duration = time.perf_counter() - started
        return self.rows.write(missing, [{**row, "duration_s": duration} for row in rows])

    def missing(self) -> list[type[Metric]]:
        """The metrics to observe: without those skipped before that cannot be had now either."""
        skipped = self.folder.skipped()
        return [
            metric
            for metric in self.folder.missing(self.metrics.values())
            if metric.name not in skipped or not self._unavailable(metric)
        ]

    def _unavailable(self, metric: type[Metric]) -> bool:
        extractors = [registry.extractors.load(name) for name in metric.extractors]
        return any(extractor.unavailable(self.resources) for extractor in extractors)

    @abstractmethod
    def _observe(self, missing: list[type[Metric]], data: ImageData) -> list[Row]:
        """The rows of the missing metrics."""

    def _setting(self, train_images: Tensor, test_images: Tensor) -> Setting:
        cell = self.cell
        assert cell.info is not None
        return Setting(
            cell.dataset,
            cell.info.fingerprint,
            cell.resolved,
            cell.seed,
            self.device,
            train_images,
            test_images,
            self.resources,
            self.reporter,
        )
