"""Ctrl-C and SIGTERM: where they may strike at once, and where they wait for a safe place."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """The run was told to stop.

    Attributes:
        number: of the signal that told it.
        saved: what can go on later, in words; empty if nothing was under way.
    """

    def __init__(self, number: int = signal.SIGINT, saved: str = "") -> None:
        super().__init__(saved)
        self.number = number
        self.saved = saved


class StopRequest:
    """Whether the run was told to stop.

    Attributes:
        number: of the first signal; None if there was none.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._at_once = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal interrupt this block, which can be left anywhere.

        Raises:
            Interrupted: there was one, before or within.
        """
        self._at_once = True
        try:
            if self.number is not None:
                raise Interrupted(self.number)
            yield
        finally:
            self._at_once = False

    def note(self, number: int) -> None:
        """Take in a signal; the second one interrupts, wherever it strikes."""
        if self._at_once or self.number is not None:
            raise Interrupted(number)
        self.number = number


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM, by which schedulers end a job, interrupt as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    with _handling(interrupt, signal.SIGTERM):
        yield


@contextmanager
def postponed() -> Iterator[StopRequest]:
    """Note down SIGINT and SIGTERM, for who asks at a safe place, instead of being interrupted.

    Signals reach the main thread only: in another one, nothing is noted.
    """
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        request.note(number)

    with _handling(note, signal.SIGINT, signal.SIGTERM):
        yield request


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
