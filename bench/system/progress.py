"""What a run tells while it goes on: bars on a terminal, lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

SECONDS_BETWEEN_LINES = 5.0
_WAITING = "waiting for another process: {} cells are left, which it works on"


class WorkReporter:
    """Is told what is done for one cell; this one says nothing."""

    def trained_batch(self, epoch: int, epochs: int, batch: int, batches: int, loss: float) -> None:
        """A batch was learned; ``epoch`` and ``batch`` count from 0."""

    def evaluated(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` images of a stage of the evaluation are through."""

    def ended(self, outcome: str, seconds: float) -> None:
        """The cell ended: ``ok``, or what went wrong."""


class Reporter:
    """Is told which cells a run works on; this one says nothing."""

    def started(self, index: int, total: int, cell: str) -> WorkReporter:
        """A cell, ``index`` from 1, begins; what is given is told the rest."""
        return WorkReporter()

    def waiting(self, cells: int) -> None:
        """All ``cells`` that are left are another process's."""


class LineReporter(Reporter):
    """A line now and then, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._waits = False

    def started(self, index: int, total: int, cell: str) -> WorkReporter:
        """Name the cell in each of its lines."""
        return _Lines(self._console, f"[{index}/{total}] {cell}")

    def waiting(self, cells: int) -> None:
        """Say so, once."""
        if not self._waits:
            self._waits = True
            self._console.print(_WAITING.format(cells), markup=False, highlight=False)


class _Lines(WorkReporter):
    def __init__(self, console: Console, cell: str) -> None:
        self._console = console
        self._cell = cell
        self._started = time.monotonic()
        self._batches = 0
        self._told = 0.0

    def trained_batch(self, epoch: int, epochs: int, batch: int, batches: int, loss: float) -> None:
        done, total = epoch * batches + batch + 1, epochs * batches
        self._batches += 1
        elapsed = time.monotonic() - self._started
        left = _clock(elapsed / self._batches * (total - done))
        self._tell(
            f"epoch {epoch + 1}/{epochs} batch {batch + 1}/{batches} loss {loss:.4f} "
            f"{left} of training left",
            now=batch + 1 == batches,
        )

    def evaluated(self, stage: str, done: int, total: int) -> None:
        self._tell(f"{stage} {done}/{total}", now=False)

    def ended(self, outcome: str, seconds: float) -> None:
        self._tell(f"{outcome} in {_clock(seconds)}", now=True)

    def _tell(self, what: str, now: bool) -> None:
        if now or time.monotonic() - self._told > SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            self._console.print(
                f"{self._cell}: {what}", markup=False, highlight=False, soft_wrap=True
            )


class BarReporter(Reporter):
    """Live bars: one of all cells, and one of each cell under way."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._cells = progress.add_task("cells", total=None, loss="")

    def started(self, index: int, total: int, cell: str) -> WorkReporter:
        """Start the cell's bar."""
        self._progress.update(self._cells, total=total)
        return _Bar(self._progress, self._cells, f"[{index}/{total}] {cell}")

    def waiting(self, cells: int) -> None:
        """Say so beside the bar."""
        self._progress.update(self._cells, description=_WAITING.format(cells))


class _Bar(WorkReporter):
    def __init__(self, progress: Progress, cells: TaskID, cell: str) -> None:
        self._progress = progress
        self._cells = cells
        self._cell = cell
        self._work = progress.add_task(f"{cell}: starting", total=None, loss="")

    def trained_batch(self, epoch: int, epochs: int, batch: int, batches: int, loss: float) -> None:
        self._progress.update(
            self._work,
            description=f"{self._cell}: epoch {epoch + 1}/{epochs} batch {batch + 1}/{batches}",
            completed=epoch * batches + batch + 1,
            total=epochs * batches,
            loss=f"loss {loss:.4f}",
        )

    def evaluated(self, stage: str, done: int, total: int) -> None:
        description = f"{self._cell}: {stage}"
        self._progress.update(
            self._work, description=description, completed=done, total=total, loss=""
        )

    def ended(self, outcome: str, seconds: float) -> None:
        """Leave a line behind, and count the cell."""
        self._progress.console.print(
            f"{self._cell}: {outcome} in {_clock(seconds)}", markup=False, highlight=False
        )
        self._progress.remove_task(self._work)
        self._progress.advance(self._cells)


@contextmanager
def reporting(console: Console) -> Iterator[Reporter]:
    """The reporter that suits the console."""
    if not console.is_terminal:
        yield LineReporter(console)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield BarReporter(progress)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
