"""The run and the metrics of each kind of cell."""

from typing import Any

from bench.execution.cell import CellRun
from bench.execution.extractor_cell import METRICS, ExtractorRun
from bench.execution.model_cell import ModelRun
from bench.metrics.metric import Metric
from bench.plan import Cell, ExtractorCell


def metrics_of(cell: Cell, metrics: dict[str, type[Metric]]) -> dict[str, type[Metric]]:
    """Return the metrics of a cell: ``metrics`` for a model, its own for an extractor."""
    return METRICS if isinstance(cell, ExtractorCell) else metrics


def cell_run(cell: Cell, metrics: dict[str, type[Metric]], **fields: Any) -> CellRun:
    """Return the run of a cell.

    Args:
        cell: cell to run.
        metrics: classes of the metrics of models, by name.
        fields: the other attributes of :class:`CellRun`.
    """
    kind = ExtractorRun if isinstance(cell, ExtractorCell) else ModelRun
    return kind(cell=cell, metrics=metrics_of(cell, metrics), **fields)
