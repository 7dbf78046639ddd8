"""Which run belongs to which kind of cell."""

from typing import Any

from bench.execution.cell import CellRun
from bench.execution.extractor_cell import METRICS, ExtractorRun
from bench.execution.model_cell import ModelRun
from bench.metrics.metric import Metric
from bench.plan import Cell, ExtractorCell


def metrics_of(cell: Cell, metrics: dict[str, type[Metric]]) -> dict[str, type[Metric]]:
    """The metrics that are observed in a cell: ``metrics``, which are of models, or its own."""
    return METRICS if isinstance(cell, ExtractorCell) else metrics


def cell_run(cell: Cell, metrics: dict[str, type[Metric]], **fields: Any) -> CellRun:
    """What runs a cell; ``fields`` are the other attributes of :class:`CellRun`."""
    kind = ExtractorRun if isinstance(cell, ExtractorCell) else ModelRun
    return kind(cell=cell, metrics=metrics_of(cell, metrics), **fields)
