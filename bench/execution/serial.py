"""Cells one after the other in this process."""

import time
from collections import deque
from functools import partial

import torch

from bench.execution.run_context import DataCache, Work
from bench.execution.table import Table
from bench.plan import Cell, Plan
from bench.system.progress import Reporter

SECONDS_BETWEEN_TRIES = 0.5


def run_serially(plan: Plan, work: Work, device: torch.device, reporter: Reporter) -> None:
    """Run what is missing of a plan's cells; cells claimed by another process come last.

    Args:
        plan: cells and datasets.
        work: what all cells of the run share.
        device: device of the models.
        reporter: receiver of the progress.

    Raises:
        OutputError: the run directory cannot be written.
    """
    data, table = DataCache(plan.datasets), Table(work.directory)
    queue: deque[tuple[int, Cell]] = deque(enumerate(plan.cells, 1))
    refused = 0
    while queue:
        index, cell = queue.popleft()
        started = partial(reporter.started, index, len(plan.cells), cell.title)
        if work.run(cell, device, data.load, started):
            refused = 0
            table.update()
            continue
        queue.append((index, cell))
        refused += 1
        if refused == len(queue):
            reporter.waiting(len(queue))
            time.sleep(SECONDS_BETWEEN_TRIES)
            refused = 0
