"""One cell from start to end: what is missing, what comes of it, and what went wrong."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from bench import registry
from bench.datasets.dataset import ImageData
from bench.errors import OutputError, SkippedError, one_line
from bench.execution.cell_log import cell_log
from bench.execution.cell_rows import CellRows
from bench.metrics.extractors.extractor import Setting
from bench.metrics.metric import Metric
from bench.plan import Cell
from bench.store.run_directory import CellFolder, Row
from bench.system.devices import describe_device, full_precision
from bench.system.files import remove_leftovers
from bench.system.paths import Resources
from bench.system.progress import WorkReporter
from bench.training.checkpoints import Interval

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CellRun(ABC):
    """Runs one cell in this process.

    Attributes:
        cell: cell to run.
        folder: folder of the cell, claimed by this process.
        metrics: classes of the metrics to observe, by name.
        device: device of the model.
        run_id: identifier of the command, for the rows.
        reporter: receiver of the progress.
        resources: places of weights and of the cache.
        interval: interval between checkpoints.
    """

    cell: Cell
    folder: CellFolder
    metrics: dict[str, type[Metric]]
    device: torch.device
    run_id: str
    reporter: WorkReporter
    resources: Resources
    interval: Interval

    @property
    def rows(self) -> CellRows:
        """Writer of the cell's rows."""
        return CellRows(self.cell, self.folder, tuple(self.metrics), self.device, self.run_id)

    def run(self, load: Callable[[], ImageData]) -> pd.DataFrame:
        """Do what is missing, and return the cell's rows. A failure becomes rows with its reason.

        Args:
            load: gives the cell's images; called only if something is missing.

        Raises:
            DamagedFileError: the rows are damaged; see :meth:`tidy`.
            OutputError: the cell's folder cannot be written.
        """
        missing = self.missing()
        if not missing:
            return self.folder.rows()
        if self.cell.skipped:
            skipped = self.rows.everywhere(missing, "skipped", self.cell.skipped)
            return self.rows.write(missing, skipped)
        with cell_log(self.folder.path):
            return self._run(missing, load)

    def missing(self) -> list[type[Metric]]:
        """Return the metrics still to observe.

        Metrics that were skipped earlier are excluded while their extractors are unavailable.

        Raises:
            DamagedFileError: the rows are damaged.
        """
        skipped = self.folder.skipped()
        return [
            metric
            for metric in self.folder.missing(self.metrics.values())
            if metric.name not in skipped or not self._unavailable(metric)
        ]

    def tidy(self) -> list[str]:
        """Remove what a dead process left half written, and set damaged files aside.

        Returns the names of the damaged ones; what they held is missing now.
        """
        remove_leftovers(self.folder.path)
        damaged = self.folder.damaged()
        if damaged:
            with cell_log(self.folder.path):
                for name in damaged:
                    self.folder.set_aside(name)
                    _LOG.warning("%s is damaged: set aside, and done again", name)
        return damaged

    def fail(self, reason: str) -> None:
        """Put down a failure that this process did not see itself, in all that is missing."""
        missing = self.missing()
        with cell_log(self.folder.path):
            _LOG.error("%s", reason)
        self.rows.write(missing, self.rows.everywhere(missing, "failed", reason))

    def _run(self, missing: list[type[Metric]], load: Callable[[], ImageData]) -> pd.DataFrame:
        _LOG.info("%s on %s", self.cell.title, describe_device(self.device))
        started = time.perf_counter()
        try:
            with full_precision():
                rows = self._observe(missing, load())
        except OutputError:
            raise
        except SkippedError as error:
            _LOG.warning("skipped: %s", error)
            rows = self.rows.everywhere(missing, "skipped", str(error))
        except Exception as error:
            _LOG.exception("failed")
            rows = self.rows.everywhere(missing, "failed", one_line(error))
        duration = time.perf_counter() - started
        written = self.rows.write(missing, [{**row, "duration_s": duration} for row in rows])
        _LOG.info("done in %.1f s", duration)
        return written

    def _unavailable(self, metric: type[Metric]) -> bool:
        extractors = [registry.extractors.load(name) for name in metric.extractors]
        return any(extractor.unavailable(self.resources) for extractor in extractors)

    @abstractmethod
    def _observe(self, missing: list[type[Metric]], data: ImageData) -> list[Row]:
        """Return the rows of the missing metrics."""

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
