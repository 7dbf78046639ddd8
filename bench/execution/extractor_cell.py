"""The cell of an extractor that is trained on the dataset, before the models that it judges."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from bench import registry
from bench.datasets.batches import evaluation_batches
from bench.datasets.dataset import ImageData
from bench.execution.cell import CellRun
from bench.execution.cell_rows import Scored
from bench.metrics.extractors.extractor import TrainedExtractor
from bench.metrics.metric import Batch, Metric, ModelFacts
from bench.metrics.reconstruction import AutoencoderReconstructionLoss
from bench.plan import ExtractorCell
from bench.recording.training_record import TrainingRecord
from bench.store.run_directory import Row

METRICS: dict[str, type[Metric]] = {
    AutoencoderReconstructionLoss.name: AutoencoderReconstructionLoss
}


def trained_extractors(metrics: Iterable[type[Metric]]) -> dict[str, type[TrainedExtractor]]:
    """Return the trained extractors that metrics use, one per cell, by registered name."""
    loaded = {
        name: registry.extractors.load(name)
        for name in sorted({name for metric in metrics for name in metric.extractors})
    }
    found: dict[str, type[TrainedExtractor]] = {}
    for name, extractor in loaded.items():
        known = {other.cell_name for other in found.values()}
        if issubclass(extractor, TrainedExtractor) and extractor.cell_name not in known:
            found[name] = extractor
    return found


@dataclass(frozen=True)
class ExtractorRun(CellRun):
    """Trains an extractor, or finds it in the cache, and says how well it reconstructs."""

    def _observe(self, missing: list[type[Metric]], data: ImageData) -> list[Row]:
        cell = self.cell
        assert isinstance(cell, ExtractorCell)
        train_images = torch.from_numpy(data.train.images).to(self.device)
        test_images = torch.from_numpy(data.test.images).to(self.device)
        extractor = registry.extractors.load(cell.extractor)(
            self._setting(train_images, test_images)
        )
        scored = Scored(len(train_images), cell.resolved.autoencoder_epochs)
        rows = []
        for metric in missing:
            instance = metric(cell.resolved)
            for images in evaluation_batches(test_images, extractor.reference_batch):
                instance.update(Batch("test", extractor.reconstruct(images), images.cpu(), {}))
            for found in instance.compute(ModelFacts(0, 0, TrainingRecord((), {}, None), None)):
                named = replace(
                    found,
                    extractor=extractor.description,
                    extractor_sha256=extractor.sha256,
                )
                rows.append(self.rows.row(metric, named, scored))
        return rows
