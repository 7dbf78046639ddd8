"""The table of a run while it grows."""

import time

from bench.store.run_directory import RunDirectory

SHARE = 0.02


class Table:
    """Gathers the rows of all cells now and then: the more there are, the longer it takes."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._due = time.monotonic()

    def update(self) -> None:
        """Gather, if that has taken less than a fiftieth of the time so far."""
        started = time.monotonic()
        if started >= self._due:
            self._directory.collect()
            ended = time.monotonic()
            self._due = ended + (ended - started) / SHARE
