"""The run of an extractor's cell: train it on the dataset, before the models that it scores."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from bench import registry
from bench.datasets.batches import evaluation_batches
from bench.evaluation.context import CellContext
from bench.execution.cell import CellRun
from bench.execution.cell_rows import ScoredWeights
from bench.execution.run_context import RunContext
from bench.metrics.extractors.extractor import TrainedExtractor
from bench.metrics.metric import Batch, Metric, ModelFacts, Observation
from bench.metrics.reconstruction import AutoencoderReconstructionLoss
from bench.plan.cells import ExtractorCell
from bench.plan.run_plan import Plan
from bench.recording.training_record import TrainingRecord
from bench.store.run_directory import Row
from bench.store.schema import EXTRACTOR_FILE
from bench.store.trained_weights import DamagedWeightsError, TrainedWeights
from bench.system.checksums import DamagedFileError

METRICS: dict[str, type[Metric]] = {
    AutoencoderReconstructionLoss.name: AutoencoderReconstructionLoss
}


def trained_extractors(metrics: Iterable[type[Metric]]) -> dict[str, type[TrainedExtractor]]:
    """Return the trained extractors that metrics use, one per cell name, by registered name.

    An extractor that cannot be used is left out: the rows of its metrics say why.
    """
    names = sorted({name for metric in metrics for name in metric.extractors})
    trained: dict[str, type[TrainedExtractor]] = {}
    for name in names:
        if registry.extractors.error(name) is not None:
            continue
        extractor = registry.extractors.load(name)
        known = {other.cell_name for other in trained.values()}
        if issubclass(extractor, TrainedExtractor) and extractor.cell_name not in known:
            trained[name] = extractor
    return trained


def keep_trained_weights(plan: Plan, context: RunContext) -> None:
    """Give the trained weights in the run directory to the extractors, before a cell needs them.

    Another machine can have trained them. Damaged weights are left to the cell that wrote them.

    Args:
        plan: cells of the run.
        context: context of the run.
    """
    for cell in plan.cells:
        folder = context.directory.cell(cell)
        if not isinstance(cell, ExtractorCell) or not folder.exists(EXTRACTOR_FILE):
            continue
        with suppress(DamagedFileError, DamagedWeightsError):
            weights = TrainedWeights.from_bytes(folder.read(EXTRACTOR_FILE))
            registry.extractors.load(cell.extractor).keep(weights, context.resources)


@dataclass(frozen=True)
class ExtractorRun(CellRun):
    """Trains an extractor, or loads it from the cache, and scores its reconstructions."""

    cell: ExtractorCell

    def missing(self) -> list[type[Metric]]:
        """Return the metrics to compute: all of them if the trained weights are lost.

        Raises:
            DamagedFileError: if the rows are damaged.
        """
        kept = EXTRACTOR_FILE not in self.folder.sums() or self.folder.exists(EXTRACTOR_FILE)
        return super().missing() if kept else self.metrics

    def extractors(self, metric: type[Metric]) -> tuple[str, ...]:
        """Return the registered name of the cell's extractor."""
        return (self.cell.extractor,)

    def _observe(self, missing: list[type[Metric]], context: CellContext) -> list[Row]:
        extractor = registry.extractors.load(self.cell.extractor)(context)
        self._keep(extractor.weights)
        epochs = context.protocol.autoencoder_epochs
        weights = ScoredWeights(len(context.train_images), epochs)
        return [
            self.rows.row(metric, observation, weights)
            for metric in missing
            for observation in _observations(metric(context.protocol), extractor, context)
        ]

    def _keep(self, weights: TrainedWeights | None) -> None:
        """Write the trained weights to the cell's folder; remove them if none were trained."""
        if weights is None:
            self.folder.remove(EXTRACTOR_FILE)
            return
        with self.folder.write(EXTRACTOR_FILE) as file:
            file.write(weights.to_bytes())


def _observations(
    metric: Metric, extractor: TrainedExtractor, context: CellContext
) -> Iterable[Observation]:
    """Yield the observations of a metric on the extractor's reconstructions of test images."""
    for images in evaluation_batches(context.test_images, extractor.reference_batch):
        metric.update(Batch("test", extractor.reconstruct(images), images.cpu(), {}))
    for observation in metric.compute(ModelFacts(0, 0, TrainingRecord((), {}, None), None)):
        yield replace(
            observation,
            extractor=extractor.description,
            extractor_sha256=extractor.sha256,
        )
