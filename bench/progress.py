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
    TextColumn,
    TimeRemainingColumn,
)

SECONDS_BETWEEN_LINES = 5.0


class Reporter:
    """Is told what a run does; this one says nothing."""

    def cell_started(self, index: int, total: int, cell: str) -> None:
        """A cell, ``index`` from 1, begins."""

    def trained_batch(self, epoch: int, epochs: int, batch: int, batches: int, loss: float) -> None:
        """A batch was learned; ``epoch`` and ``batch`` count from 0."""

    def evaluated(self, stage: str, done: int, total: int) -> None:
        """``done`` of ``total`` images of a stage of the evaluation are through."""

    def cell_ended(self, outcome: str, seconds: float) -> None:
        """The cell ended: ``ok``, or what went wrong."""


class LineReporter(Reporter):
    """A line now and then, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._cell = ""
        self._started = self._told = 0.0

    def cell_started(self, index: int, total: int, cell: str) -> None:
        """Name the cell."""
        self._cell = f"[{index}/{total}] {cell}"
        self._started = time.monotonic()
        self._told = 0.0

    def trained_batch(self, epoch: int, epochs: int, batch: int, batches: int, loss: float) -> None:
        """Tell epoch, batch, loss and time left."""
        done, total = epoch * batches + batch + 1, epochs * batches
        elapsed = time.monotonic() - self._started
        left = _clock(elapsed / done * (total - done))
        self._tell(
            f"epoch {epoch + 1}/{epochs} batch {batch + 1}/{batches} loss {loss:.4f} "
            f"{left} of training left",
            now=batch + 1 == batches,
        )

    def evaluated(self, stage: str, done: int, total: int) -> None:
        """Tell the images done."""
        self._tell(f"{stage} {done}/{total}", now=False)

    def cell_ended(self, outcome: str, seconds: float) -> None:
        """Tell the outcome and the time."""
        self._tell(f"{outcome} in {_clock(seconds)}", now=True)

    def _tell(self, what: str, now: bool) -> None:
        if now or time.monotonic() - self._told > SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            self._console.print(
                f"{self._cell}: {what}", markup=False, highlight=False, soft_wrap=True
            )


class BarReporter(Reporter):
    """Two live bars: cells, and what the current one does."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._cells = progress.add_task("cells", total=None, loss="")
        self._work = progress.add_task("", total=None, loss="")

    def cell_started(self, index: int, total: int, cell: str) -> None:
        """Start the cell's bar."""
        self._progress.update(
            self._cells, description=f"[{index}/{total}] {cell}", completed=index - 1, total=total
        )
        self._progress.reset(self._work, description="building", total=None)

    def trained_batch(self, epoch: int, epochs: int, batch: int, batches: int, loss: float) -> None:
        """Move the cell's bar by a batch."""
        self._progress.update(
            self._work,
            description=f"epoch {epoch + 1}/{epochs} batch {batch + 1}/{batches}",
            completed=epoch * batches + batch + 1,
            total=epochs * batches,
            loss=f"loss {loss:.4f}",
        )

    def evaluated(self, stage: str, done: int, total: int) -> None:
        """Move the cell's bar by a batch of images."""
        self._progress.update(self._work, description=stage, completed=done, total=total, loss="")

    def cell_ended(self, outcome: str, seconds: float) -> None:
        """Leave a line behind, and count the cell."""
        description = self._progress.tasks[self._cells].description
        self._progress.console.print(
            f"{description}: {outcome} in {_clock(seconds)}", markup=False, highlight=False
        )
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
