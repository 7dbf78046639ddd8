"""The run of a cell of images that exist: evaluate, nothing else."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.datasets.batches import to_unit_range
from bench.datasets.given_images import GivenImages
from bench.evaluation.context import CellContext
from bench.evaluation.evaluator import Evaluator
from bench.evaluation.given_outputs import GivenOutputs, in_unit_range
from bench.evaluation.showcase import GRID_IMAGES, Showcase, save_showcase, spread
from bench.execution.cell import CellRun
from bench.metrics.metric import Metric
from bench.plan.cells import ImagesCell
from bench.store.run_directory import Row


@dataclass(frozen=True)
class ImagesRun(CellRun):
    """Evaluates generated images, and reconstructions if there are any."""

    cell: ImagesCell

    def _observe(self, missing: list[type[Metric]], context: CellContext) -> list[Row]:
        self._write_facts(images=self._facts_of_images())
        generated = self._tensor(self.cell.generated)
        given = self.cell.reconstructions
        reconstructions = None if given is None else self._tensor(given)
        outputs = GivenOutputs(context.protocol, generated, reconstructions)
        evaluator = Evaluator(context)
        observed = evaluator.evaluate(outputs, missing, training=None)
        shown = _showcase(generated, reconstructions, context)
        save_showcase(shown, self.folder)
        rows = self.rows.untrained(missing, observed)
        self._save_nearest(rows, shown, evaluator.extractors)
        return rows

    def _tensor(self, images: GivenImages) -> Tensor:
        return torch.from_numpy(images.pixels).to(self.device)

    def _facts_of_images(self) -> dict[str, Any]:
        given = {"generated": self.cell.generated, "reconstructions": self.cell.reconstructions}
        return {
            name: {"source": images.source, "count": len(images), "sha256": images.sha256}
            for name, images in given.items()
            if images is not None
        }


def _showcase(generated: Tensor, reconstructions: Tensor | None, context: CellContext) -> Showcase:
    images = {"samples": in_unit_range(generated[:GRID_IMAGES])}
    if reconstructions is not None:
        shown = spread(len(context.test_images)).to(generated.device)
        images["inputs"] = to_unit_range(context.test_images[shown])
        images["reconstructions"] = in_unit_range(reconstructions[shown])
    return Showcase(images, {})
