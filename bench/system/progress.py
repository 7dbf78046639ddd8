"""Progress reports of a run: live bars in a terminal or notebook, lines of text elsewhere."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

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

from bench.errors import BenchError

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_UPDATES = 0.5
AUTO: Literal["auto"] = "auto"
"""Stands for the reporter that suits where standard error goes."""
_WAITING = "waiting for another process, which works on the remaining {} cells"


class WorkReporter:
    """Receiver of one cell's progress; this base class reports nothing."""

    def began_stage(self, stage: str) -> None:
        """Report that a stage of the training begins, or that a training resumes within it."""

    def trained_batch(
        self, epoch: int, epochs: int, batch: int, batches: int, losses: Mapping[str, float]
    ) -> None:
        """Report that the model was trained on a batch.

        Args:
            epoch: index of the epoch, from 0.
            epochs: number of epochs.
            batch: index of the batch in the epoch, from 0.
            batches: number of batches per epoch.
            losses: training losses of the batch to show, by name.
        """

    def evaluated(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Report the progress of one stage of the evaluation.

        Args:
            stage: name of the stage.
            done: number of images evaluated so far.
            total: number of images in the stage.
            detail: what is being done to the next images, in a few words.
        """

    def warned(self, text: str) -> None:
        """Show a warning about the cell, which goes on.

        Args:
            text: the warning, in one line.
        """

    def ended(self, outcome: str, seconds: float) -> None:
        """Report that the cell ended.

        Args:
            outcome: ``ok``, or a short description of the failure.
            seconds: duration of the cell.
        """


class Reporter:
    """Receiver of a run's progress; this base class reports nothing."""

    def started(self, index: int, total: int, cell: str) -> WorkReporter:
        """Report that a cell begins.

        Args:
            index: number of the cell, from 1.
            total: number of cells in the run.
            cell: name of the cell.

        Returns:
            The receiver of the cell's progress.
        """
        return WorkReporter()

    def waiting(self, cells: int) -> None:
        """Report that another process is working on all of the remaining ``cells``."""


class LineReporter(Reporter):
    """Reporter for logs: at most one line of text every few seconds per cell."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._waits = False

    def started(self, index: int, total: int, cell: str) -> WorkReporter:
        """Return a receiver that prints lines which begin with the cell's name."""
        return _Lines(self._console, f"[{index}/{total}] {cell}")

    def waiting(self, cells: int) -> None:
        """Print a line on the first call."""
        if not self._waits:
            self._waits = True
            self._console.print(_WAITING.format(cells), markup=False, highlight=False)


class _Lines(WorkReporter):
    def __init__(self, console: Console, cell: str) -> None:
        self._console = console
        self._cell = cell
        self._first: tuple[float, int] | None = None
        self._last_line = 0.0
        self._stage = ""

    def began_stage(self, stage: str) -> None:
        self._stage = f"{stage}, "

    def trained_batch(
        self, epoch: int, epochs: int, batch: int, batches: int, losses: Mapping[str, float]
    ) -> None:
        left = self._time_left(epoch * batches + batch + 1, epochs * batches)
        self._print(
            f"{self._stage}epoch {epoch + 1}/{epochs} batch {batch + 1}/{batches} "
            f"{_in_words(losses)}{left}",
            at_once=batch + 1 == batches,
        )

    def evaluated(self, stage: str, done: int, total: int, detail: str = "") -> None:
        self._print(f"{stage} {done}/{total}" + (f", {detail}" if detail else ""), at_once=False)

    def warned(self, text: str) -> None:
        self._print(f"warning: {text}", at_once=True)

    def ended(self, outcome: str, seconds: float) -> None:
        self._print(f"{outcome} in {_clock(seconds)}", at_once=True)

    def _time_left(self, done: int, total: int) -> str:
        """Return the time that the rest of the batches takes, from the second report on.

        Before the first report, things are done that are done once.
        """
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
            return ""
        since, before = self._first
        seconds = (now - since) / (done - before) * (total - done)
        return f" {_clock(seconds)} of training left"

    def _print(self, text: str, at_once: bool) -> None:
        if at_once or time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._console.print(
                f"{self._cell}: {text}", markup=False, highlight=False, soft_wrap=True
            )


class BarReporter(Reporter):
    """Reporter for terminals: one live bar for the run, and one for each running cell."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._cells = progress.add_task("cells", total=None, note="")

    def started(self, index: int, total: int, cell: str) -> WorkReporter:
        """Add a bar for the cell."""
        self._progress.update(self._cells, total=total)
        return _Bar(self._progress, self._cells, f"[{index}/{total}] {cell}")

    def waiting(self, cells: int) -> None:
        """Show it next to the bar of the run."""
        self._progress.update(self._cells, description=_WAITING.format(cells))


class _Bar(WorkReporter):
    def __init__(self, progress: Progress, cells: TaskID, cell: str) -> None:
        self._progress = progress
        self._cells = cells
        self._cell = cell
        self._work = progress.add_task(f"{cell}: starting", total=None, note="")
        self._stage = ""

    def began_stage(self, stage: str) -> None:
        self._stage = f"{stage}, "

    def trained_batch(
        self, epoch: int, epochs: int, batch: int, batches: int, losses: Mapping[str, float]
    ) -> None:
        self._progress.update(
            self._work,
            description=(
                f"{self._cell}: {self._stage}epoch {epoch + 1}/{epochs} batch {batch + 1}/{batches}"
            ),
            completed=epoch * batches + batch + 1,
            total=epochs * batches,
            note=_in_words(losses),
        )

    def evaluated(self, stage: str, done: int, total: int, detail: str = "") -> None:
        description = f"{self._cell}: {stage}"
        self._progress.update(
            self._work, description=description, completed=done, total=total, note=detail
        )

    def warned(self, text: str) -> None:
        """Print the warning above the bars."""
        self._progress.console.print(
            f"{self._cell}: warning: {text}", markup=False, highlight=False
        )

    def ended(self, outcome: str, seconds: float) -> None:
        """Replace the cell's bar by a line of text, and advance the bar of the run."""
        self._progress.console.print(
            f"{self._cell}: {outcome} in {_clock(seconds)}", markup=False, highlight=False
        )
        self._progress.remove_task(self._work)
        self._progress.advance(self._cells)


class _NotebookProgress(Progress):
    """Bars in an output of a notebook, which is replaced; Rich's own need another package."""

    def start(self) -> None:
        from IPython.display import DisplayHandle

        self._handle = DisplayHandle()
        self._handle.display(self)
        self._last_update = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        if time.monotonic() - self._last_update >= SECONDS_BETWEEN_UPDATES:
            self._handle.update(self)
            self._last_update = time.monotonic()

    def stop(self) -> None:
        self._handle.update(self)


@contextmanager
def reporting(console: Console) -> Iterator[Reporter]:
    """Create bars if the console is a terminal or a notebook, else a reporter that prints lines."""
    if not (console.is_terminal or console.is_jupyter):
        yield LineReporter(console)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    if console.is_jupyter:
        bars: Progress = _NotebookProgress(*columns, console=console, auto_refresh=False)
    else:
        bars = Progress(*columns, console=console, transient=True)
    with bars as progress:
        yield BarReporter(progress)


@contextmanager
def requested(reporter: Reporter | Literal["auto"] | None) -> Iterator[Reporter]:
    """Create the reporter that a request asks for.

    Args:
        reporter: a reporter, ``"auto"`` for bars or lines on standard error, or None for silence.

    Raises:
        BenchError: the reporter is something else.
    """
    if reporter is None:
        yield Reporter()
    elif isinstance(reporter, Reporter):
        yield reporter
    elif reporter == AUTO:
        with reporting(Console(stderr=True)) as chosen:
            yield chosen
    else:
        raise BenchError(
            f"Reporter {reporter!r}: expected 'auto', None for silence, or a "
            "bench.system.progress.Reporter."
        )


def _in_words(losses: Mapping[str, float]) -> str:
    """Format losses for a line of progress.

    >>> _in_words({"discriminator_loss": -0.25, "generator_loss": 1})
    'discriminator_loss -0.2500 generator_loss 1.0000'
    """
    return " ".join(f"{name} {value:.4f}" for name, value in losses.items())


def _clock(seconds: float) -> str:
    """Format a duration as minutes and seconds.

    >>> _clock(75.2)
    '1:15'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
