"""Run cells one after the other in this process."""

import time
from collections import deque
from functools import partial

import torch

from bench.execution.run_cell import run_cell
from bench.execution.run_context import DataCache, GrowingTable, RunContext
from bench.plan.cells import Cell
from bench.plan.run_plan import Plan
from bench.system.progress import Reporter
from bench.system.signals import raise_unheard

SECONDS_BETWEEN_TRIES = 0.5


def run_serially(plan: Plan, context: RunContext, device: torch.device, reporter: Reporter) -> None:
    """Run what is missing of a plan's cells. Cells that another process is working on come last.

    Args:
        plan: cells and datasets.
        context: context of the run.
        device: device of the models.
        reporter: receiver of the progress.

    Raises:
        OutputError: if the run directory cannot be written.
        Interrupted: if a signal stops the run.
    """
    data, table = DataCache(plan.datasets), GrowingTable(context.directory)
    queue: deque[tuple[int, Cell]] = deque(enumerate(plan.cells, 1))
    refused = 0
    while queue:
        raise_unheard()
        index, cell = queue.popleft()
        started = partial(reporter.started, index, len(plan.cells), cell.title)
        if run_cell(cell, context, device, data.load, started):
            refused = 0
            table.update()
            continue
        queue.append((index, cell))
        refused += 1
        if refused == len(queue):
            reporter.waiting(len(queue))
            time.sleep(SECONDS_BETWEEN_TRIES)
            refused = 0
