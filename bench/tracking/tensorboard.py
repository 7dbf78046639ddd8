"""The tracker for TensorBoard: event files in the run directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.store.schema import PARTS
from bench.tracking.tracker import TrackedCell, Tracker, final_values, missing_package

# End of the name of the file with the rows, which is replaced as a whole.
ROWS_SUFFIX = ".rows"
_MACHINE = "environment."


class TensorBoard(Tracker):
    """Event files in ``tensorboard/CELL`` of the run directory: ``tensorboard --logdir DIR``."""

    def __init__(self, cell: TrackedCell, folder: Path, seen: int) -> None:
        self._cell, self._folder = cell, folder
        if not seen:
            _remove_events(folder, "*")
        # TensorBoard hides what earlier files have from this position on.
        self._writer = _writer(folder, purge_step=seen + 1 if seen else None)
        if not seen:
            self._writer.add_text("settings", _table(cell.settings), 0)

    @classmethod
    def missing(cls) -> str | None:
        """Return what is missing to use TensorBoard; None if nothing is."""
        return missing_package("tensorboard", "tensorboard")

    def scalars(self, seen: int, values: Mapping[str, float]) -> None:
        """Log each number under its name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, seen)

    def images(self, seen: int, grids: Mapping[str, np.ndarray]) -> None:
        """Log each grid under its name."""
        for name, grid in grids.items():
            self._writer.add_image(name, grid, seen, dataformats="HWC")

    def rows(self, seen: int, rows: pd.DataFrame) -> None:
        """Write the values to a file of their own, with the settings as hyperparameters.

        Values about the whole model are the metrics of TensorBoard's table of hyperparameters.
        """
        from torch.utils.tensorboard.summary import hparams

        self.flush()
        _remove_events(self._folder, f"*{ROWS_SUFFIX}")
        values, main = final_values(rows), final_values(rows[rows[list(PARTS)].isna().all(axis=1)])
        settings = {n: v for n, v in self._cell.settings.items() if not n.startswith(_MACHINE)}
        with _writer(self._folder, filename_suffix=ROWS_SUFFIX) as writer:
            for summary in hparams(settings, main):
                writer.file_writer.add_summary(summary)
            for name, value in values.items():
                writer.add_scalar(name, value, seen)

    def flush(self) -> None:
        """Write all events to the file."""
        self._writer.flush()

    def close(self) -> None:
        """Write all events, and close the file."""
        self._writer.close()


def _writer(folder: Path, **options: Any) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), **options)


def _remove_events(folder: Path, pattern: str) -> None:
    """Delete the event files whose names match."""
    for path in folder.glob(f"events.out.tfevents.{pattern}"):
        path.unlink()


def _table(settings: Mapping[str, object]) -> str:
    """Return settings as a table in Markdown."""
    lines = [f"| {name} | {value} |".replace("\n", " ") for name, value in settings.items()]
    return "\n".join(["| setting | value |", "|---|---|", *lines])
