"""The run of one cell: what is missing, what comes of it, and what went wrong."""

import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from bench import registry
from bench.datasets.dataset import ImageData, Split
from bench.errors import OutputError, SkippedError, one_line
from bench.evaluation.context import CellContext
from bench.evaluation.nearest_images import memorisation_extractor, save_nearest
from bench.evaluation.showcase import Showcase
from bench.execution.cell_log import cell_log
from bench.execution.cell_rows import CellRows
from bench.execution.run_context import RunContext
from bench.metrics.distribution import DistributionMetric
from bench.metrics.extractors.extractor import Extractors, TrainedExtractor, why_unavailable
from bench.metrics.extractors.reference_statistics import shown_sha256
from bench.metrics.metric import Metric
from bench.metrics.unusable import UnusableMetric
from bench.plan.cells import Cell
from bench.store.run_directory import CellFolder, Row
from bench.store.schema import CELL_FILE, FAILED, NOT_ASKED, OK, SKIPPED, Status
from bench.system.devices import describe_device, fastest_convolutions, tf32
from bench.system.environment import environment
from bench.system.files import remove_leftovers
from bench.system.progress import WorkReporter
from bench.system.threads import cpu_threads

NOT_ASKED_REASON = "the same command with this metric among --metrics computes it"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CellRun(ABC):
    """Runs one cell in this process. No other process may be working on it.

    Attributes:
        cell: cell to run.
        context: context of the run.
        device: device of the model.
        reporter: receiver of the cell's progress.
    """

    cell: Cell
    context: RunContext
    device: torch.device
    reporter: WorkReporter

    @cached_property
    def folder(self) -> CellFolder:
        """The cell's folder."""
        return self.context.directory.cell(self.cell)

    @cached_property
    def metrics(self) -> list[type[Metric]]:
        """The metrics of this kind of cell, in the order of the rows."""
        return list(self.context.metrics[self.cell.kind].values())

    @cached_property
    def asked(self) -> list[type[Metric]]:
        """The metrics that were asked for."""
        return [metric for metric in self.metrics if metric.name in self.context.asked]

    @property
    def tf32(self) -> bool:
        """True if the model of the cell computes in TF32."""
        return False

    @property
    def rows(self) -> CellRows:
        """The rows of the cell."""
        return CellRows(self.cell, self.context, self.device)

    def run(self, load: Callable[[], ImageData]) -> pd.DataFrame:
        """Do what is missing, and return the cell's rows. A failure becomes rows with its reason.

        Args:
            load: function that returns the cell's images; called only if something is missing.

        Raises:
            DamagedFileError: if the rows are damaged, see :meth:`tidy`.
            OutputError: if the cell's folder cannot be written.
        """
        missing = self.missing()
        if not missing:
            return self.folder.rows()
        if self.cell.skipped:
            return self._write(missing, self._without_value(missing, SKIPPED, self.cell.skipped))
        with cell_log(self.folder.path):
            return self._run(missing, load)

    def missing(self) -> list[type[Metric]]:
        """Return the metrics to compute: asked for, and not skipped before and still unavailable.

        Metrics computed with other weights than the reference carries are computed again.

        Raises:
            DamagedFileError: if the rows are damaged.
        """
        skipped, undone = self.folder.skipped(), set(self.folder.missing(self.metrics))
        return [
            metric
            for metric in self.asked
            if (metric not in undone and self._outdated(metric))
            or (metric in undone and (metric.name not in skipped or not self._unavailable(metric)))
        ]

    def extractors(self, metric: type[Metric]) -> tuple[str, ...]:
        """Return the registered names of the extractors that a metric uses."""
        return metric.extractors

    def tidy(self) -> list[str]:
        """Remove files that a dead process left unfinished, and set damaged files aside.

        Returns:
            Names of the damaged files. Their content is missing from then on.
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
        """Record a failure that happened outside of this process, for everything missing."""
        missing = self.missing()
        with cell_log(self.folder.path):
            _LOG.error("%s", reason)
        self._write(missing, self._without_value(missing, FAILED, reason))

    def _run(self, missing: list[type[Metric]], load: Callable[[], ImageData]) -> pd.DataFrame:
        _LOG.info("%s on %s", self.cell.title, describe_device(self.device))
        started = time.perf_counter()
        try:
            with tf32(self.tf32), fastest_convolutions(), cpu_threads(self.cell.resolved.threads):
                rows = self._observe(missing, self._cell_context(load()))
        except OutputError:
            raise
        except SkippedError as error:
            _LOG.info("skipped: %s", error)
            rows = self._without_value(missing, SKIPPED, str(error))
        except Exception as error:
            _LOG.exception("failed")
            rows = self._without_value(missing, FAILED, one_line(error))
        duration = time.perf_counter() - started
        written = self._write(missing, [{**row, "duration_s": duration} for row in rows])
        _LOG.info("done in %.1f s", duration)
        return written

    @abstractmethod
    def _observe(self, missing: list[type[Metric]], context: CellContext) -> list[Row]:
        """Return the rows of the missing metrics.

        Raises:
            SkippedError: if the cell cannot run here.
        """

    def _save_nearest(self, rows: list[Row], shown: Showcase, extractors: Extractors) -> None:
        """Write the nearest training images, if a metric of memorisation has a value.

        Args:
            rows: rows of the cell's metrics.
            shown: outputs of the model.
            extractors: extractors of the cell.
        """
        valued = {row["metric"] for row in rows if row["status"] == OK}
        name = memorisation_extractor(self.metrics, valued)
        if name is not None:
            save_nearest(shown.images["samples"], name, extractors, self.folder)

    def _write(self, replaced: list[type[Metric]], rows: list[Row]) -> pd.DataFrame:
        """Replace rows; metrics without any get a row that says that they were not asked for."""
        known = set(self.folder.rows()["metric"])
        left_out = [m for m in self.metrics if m not in self.asked and m.name not in known]
        left_out = [metric for metric in left_out if metric not in replaced]
        unasked = self._without_value(left_out, NOT_ASKED, NOT_ASKED_REASON)
        return self.rows.write([*replaced, *left_out], [*rows, *unasked])

    def _write_facts(self, **own: Any) -> None:
        """Write what the cell is to ``cell.json``.

        Args:
            own: facts that other kinds of cells do not have, by name.
        """
        self._write_json(CELL_FILE, self._facts(**own))

    def _facts(self, **own: Any) -> dict[str, Any]:
        """Return what the cell is: its names, settings and provenance.

        Args:
            own: facts that other kinds of cells do not have, by name.
        """
        cell = self.cell
        return {
            "key": cell.key,
            "model": cell.model,
            "model_version": cell.model_version,
            "backend": cell.backend,
            **own,
            "dataset": asdict(cell.info) if cell.info else None,
            "seed": cell.seed,
            "device": describe_device(self.device),
            "protocol": cell.protocol.model_dump(mode="json"),
            "resolved_protocol": cell.resolved.model_dump(mode="json"),
            "environment": environment(),
        }

    def _write_json(self, name: str, content: Any) -> None:
        with self.folder.write(name) as file:
            file.write(json.dumps(content, indent=2).encode())

    def _without_value(self, metrics: list[type[Metric]], status: Status, reason: str) -> list[Row]:
        return [self.rows.without_value(metric, status, reason) for metric in metrics]

    def _outdated(self, metric: type[Metric]) -> bool:
        """Return True if rows were computed with another reference than the one that is given."""
        return self._other_weights(metric) or self._other_statistics(metric)

    def _other_statistics(self, metric: type[Metric]) -> bool:
        if not (issubclass(metric, DistributionMetric) and metric.of_moments):
            return False
        file = self.context.resources.statistics.get(metric.extractors[0])
        if file is None:
            return False
        rows = self.folder.rows()
        used = rows.loc[rows["metric"] == metric.name, "extractor"].dropna()
        return not used.str.contains(shown_sha256(file), regex=False).all()

    def _other_weights(self, metric: type[Metric]) -> bool:
        carried = {self._reference_sha256(name) for name in self.extractors(metric)} - {None}
        if not carried:
            return False
        rows = self.folder.rows()
        used = rows.loc[rows["metric"] == metric.name, "extractor_sha256"].dropna()
        return not set(used) <= carried

    def _reference_sha256(self, name: str) -> str | None:
        """Return the SHA-256 of the reference's weights of an extractor for this cell, if any."""
        if registry.extractors.error(name):
            return None
        extractor, cell = registry.extractors.load(name), self.cell
        if cell.info is None or not issubclass(extractor, TrainedExtractor):
            return None
        content = extractor.training_content(
            dataset=cell.dataset,
            fingerprint=cell.info.fingerprint,
            protocol=cell.resolved,
            train_images=cell.train_size,
        )
        file = extractor.reference_file(self.context.resources, content)
        return file.sha256 if file else None

    def _unavailable(self, metric: type[Metric]) -> bool:
        broken = any(registry.extractors.error(name) for name in self.extractors(metric))
        if broken or issubclass(metric, UnusableMetric):
            return True
        extractors = [registry.extractors.load(name) for name in self.extractors(metric)]
        return any(why_unavailable(each, self.context.resources) for each in extractors)

    def _cell_context(self, data: ImageData) -> CellContext:
        cell = self.cell
        assert cell.info is not None
        return CellContext(
            dataset=cell.dataset,
            fingerprint=cell.info.fingerprint,
            protocol=cell.resolved,
            seed=cell.seed,
            device=self.device,
            train_images=self._images(data.train),
            test_images=self._images(data.test),
            validation_images=self._images(data.validation) if data.validation else None,
            train_labels=_labels(data.train),
            test_labels=_labels(data.test),
            class_counts=cell.info.class_counts,
            resources=self.context.resources,
            reporter=self.reporter,
        )

    def _images(self, split: Split) -> Tensor:
        return torch.from_numpy(split.images).to(self.device)


def _labels(split: Split) -> Tensor | None:
    """Return the classes of the images, int64 ``(N,)``; None if unknown."""
    return None if split.labels is None else torch.from_numpy(split.labels)
