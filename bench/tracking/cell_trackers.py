"""The trackers of a run and of its cells; one that fails is left out from then on."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import registry
from bench.errors import one_line
from bench.system.paths import safe_name
from bench.tracking.tracker import TrackedCell, Tracker

_LOG = logging.getLogger(__name__)
Warn = Callable[[str], None]


class CellTrackers:
    """The trackers of one cell. Each method calls the method of every tracker.

    A tracker that raises an error is left out from then on: the training goes on.

    Args:
        cell: the cell.
        folders: folder of the cell's files by name of the tracker.
        warn: function that shows a warning to the user.
    """

    def __init__(self, cell: TrackedCell, folders: Mapping[str, Path], warn: Warn) -> None:
        self._cell, self._folders, self._warn = cell, dict(folders), warn
        self._open: dict[str, Tracker] = {}

    def begin(self, seen: int) -> None:
        """Open the log, or open it again after a lost process.

        Args:
            seen: number of training images from which on the log is written.
        """
        self.close()
        for name in list(self._folders):
            self._guarded(name, self._begin, name, seen)

    def scalars(self, seen: int, values: Mapping[str, float]) -> None:
        """Log numbers by name, see :meth:`Tracker.scalars`."""
        self._each("scalars", seen, values)

    def images(self, seen: int, grids: Mapping[str, np.ndarray]) -> None:
        """Log grids of images ``(H, W, 3)`` by name, see :meth:`Tracker.images`."""
        self._each("images", seen, grids)

    def rows(self, seen: int, rows: pd.DataFrame) -> None:
        """Log the rows of the cell, see :meth:`Tracker.rows`."""
        self._each("rows", seen, rows)

    def flush(self) -> None:
        """Write what is held back."""
        self._each("flush")

    def close(self) -> None:
        """End the log; do nothing if it is not open."""
        self._each("close")
        self._open.clear()

    def _each(self, method: str, *arguments: Any) -> None:
        """Call a method of each open tracker."""
        for name, tracker in list(self._open.items()):
            self._guarded(name, getattr(tracker, method), *arguments)

    def _begin(self, name: str, seen: int) -> None:
        self._open[name] = registry.trackers.load(name)(self._cell, self._folders[name], seen)

    def _guarded(self, name: str, call: Callable[..., None], *arguments: Any) -> None:
        """Make a call for a tracker; if it fails, warn and leave the tracker out."""
        try:
            call(*arguments)
        except Exception as error:  # the library of a service can raise any
            _LOG.exception("the tracker %s failed", name)
            self._warn(f"the tracker {name} failed and logs no more: {one_line(error)}")
            self._folders.pop(name, None)
            self._open.pop(name, None)


@dataclass(frozen=True)
class Tracking:
    """The trackers of a run.

    Attributes:
        directory: the run directory.
        names: registered names of the trackers.
    """

    directory: Path
    names: tuple[str, ...] = ()

    def trackers(self, cell: TrackedCell, warn: Warn) -> CellTrackers:
        """Return the trackers of a cell.

        Args:
            cell: the cell.
            warn: function that shows a warning to the user.
        """
        folders = {name: self.directory / safe_name(name) / cell.name for name in self.names}
        return CellTrackers(cell, folders, warn)
