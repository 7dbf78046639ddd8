"""Progress as messages, from where a cell runs to where it is shown."""

import time
from collections.abc import Callable
from typing import Any

from bench.system.progress import WorkReporter

SECONDS_BETWEEN_MESSAGES = 0.2


class MessageReporter(WorkReporter):
    """Sends progress as ``(method, *arguments)``; updates that come too often are dropped."""

    def __init__(self, send: Callable[..., None]) -> None:
        self._send = send
        self._told = 0.0

    def trained_batch(self, epoch: int, epochs: int, batch: int, batches: int, loss: float) -> None:
        """Send it at times."""
        self._send_at_times("trained_batch", epoch, epochs, batch, batches, loss)

    def evaluated(self, stage: str, done: int, total: int) -> None:
        """Send it at times."""
        self._send_at_times("evaluated", stage, done, total)

    def ended(self, outcome: str, seconds: float) -> None:
        """Send it."""
        self._send("ended", outcome, seconds)

    def _send_at_times(self, *message: Any) -> None:
        now = time.monotonic()
        if now - self._told >= SECONDS_BETWEEN_MESSAGES:
            self._told = now
            self._send(*message)
