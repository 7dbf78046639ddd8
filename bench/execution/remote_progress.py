"""Progress reports as messages, from where a cell runs to where its progress is shown."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from bench.system.progress import WorkReporter

SECONDS_BETWEEN_MESSAGES = 0.2


class MessageReporter(WorkReporter):
    """Sends reports as ``(method, *arguments)``, and drops reports that follow too quickly.

    Args:
        send: function that sends its arguments as one message.
    """

    def __init__(self, send: Callable[..., None]) -> None:
        self._send = send
        self._last_message = 0.0

    def began_stage(self, stage: str) -> None:
        """Send the report."""
        self._send("began_stage", stage)

    def trained_batch(
        self, epoch: int, epochs: int, batch: int, batches: int, losses: Mapping[str, float]
    ) -> None:
        """Send the report unless another was sent just before.

        Args:
            epoch: index of the epoch, from 0.
            epochs: number of epochs.
            batch: index of the batch in the epoch, from 0.
            batches: number of batches per epoch.
            losses: training losses of the batch to show, by name.
        """
        self._send_rarely("trained_batch", (epoch, epochs, batch, batches, dict(losses)))

    def evaluated(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Send the report unless another was sent just before.

        Args:
            stage: name of the stage.
            done: number of images evaluated so far.
            total: number of images in the stage.
            detail: what is being done to the next images, in a few words.
        """
        self._send_rarely("evaluated", (stage, done, total, detail))

    def warned(self, text: str) -> None:
        """Send the report."""
        self._send("warned", text)

    def ended(self, outcome: str, seconds: float) -> None:
        """Send the report."""
        self._send("ended", outcome, seconds)

    def _send_rarely(self, method: str, arguments: tuple[Any, ...]) -> None:
        now = time.monotonic()
        if now - self._last_message >= SECONDS_BETWEEN_MESSAGES:
            self._last_message = now
            self._send(method, *arguments)
