"""The run of a cell of a model whose weights exist: evaluate, nothing else."""

from dataclasses import dataclass

import torch

from bench.errors import SkippedError
from bench.evaluation.context import CellContext
from bench.evaluation.evaluator import Evaluator
from bench.evaluation.showcase import save_showcase, showcase
from bench.execution.build import build_model, neuron_implementation
from bench.execution.cell import CellRun
from bench.execution.model_cell import with_weights
from bench.metrics.metric import Metric
from bench.plan.cells import WeightsCell
from bench.plan.run_plan import Plan
from bench.store.run_directory import Row
from bench.testing.neuron_verdict import model_verdict
from bench.training.given_weights import check_fit
from bench.training.loop import LAST
from bench.training.model_weights import write_weights


@dataclass(frozen=True)
class WeightsRun(CellRun):
    """Evaluates a model with weights that someone has trained."""

    cell: WeightsCell

    @property
    def tf32(self) -> bool:
        """True if the protocol says so; metrics and extractors compute in float32 all the same."""
        return self.cell.resolved.precision == "tf32"

    def _observe(self, missing: list[type[Metric]], context: CellContext) -> list[Row]:
        cell, given = self.cell, self.cell.weights
        implementation = neuron_implementation(cell, self.device)
        model = build_model(cell, tuple(context.train_images.shape[1:]), self.device)
        verdict = model_verdict(model)
        self._write_facts(
            neuron_implementation=implementation,
            neuron_verdict=verdict,
            registered_model=cell.registered,
            weights={"source": given.source, "sha256": given.sha256},
        )
        write_weights(self.folder, LAST, given.tensors)
        model = with_weights(model, self.folder, LAST)
        shown, evaluator = showcase(model, context), Evaluator(context)
        save_showcase(shown, self.folder)
        observed = evaluator.evaluate(model, missing, training=None)
        rows = self.rows.untrained(missing, observed)
        self._save_nearest(rows, shown, evaluator.extractors)
        return [{**row, "neuron_verdict": verdict} for row in rows]


def check_weights(plan: Plan) -> None:
    """Check that the weights of a plan fit their models, before anything is written.

    Raises:
        BenchError: weights are missing, unknown or of another shape.
    """
    for cell in plan.cells:
        if not isinstance(cell, WeightsCell):
            continue
        assert cell.info is not None
        size = cell.resolved.image_size
        try:
            model = build_model(cell, (cell.info.channels, size, size), torch.device("cpu"))
        except SkippedError:
            continue  # The cell's rows tell the reason.
        check_fit(cell.weights, model)
