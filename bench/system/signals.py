"""Handling of Ctrl-C and SIGTERM: immediate interruption, or a request to stop at a safe place."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A signal has stopped the run.

    Attributes:
        signum: number of the signal.
        saved: description of the work that can be resumed later; empty if there is none.
    """

    def __init__(self, signum: int = signal.SIGINT, saved: str = "") -> None:
        super().__init__(saved)
        self.signum = signum
        self.saved = saved


class StopRequest:
    """Record of the signals that have asked the run to stop.

    Attributes:
        signum: number of the first signal; None before the first signal.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._at_once = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal interrupt this block immediately; it must be safe to leave anywhere.

        Raises:
            Interrupted: if a signal arrived before the block or within it.
        """
        self._at_once = True
        try:
            if self.signum is not None:
                raise Interrupted(self.signum)
            yield
        finally:
            self._at_once = False

    def note(self, signum: int) -> None:
        """Record a signal.

        Raises:
            Interrupted: if it is the second signal, or if :meth:`at_once` is active.
        """
        if self._at_once or self.signum is not None:
            raise Interrupted(signum)
        self.signum = signum


@contextmanager
def terminable() -> Iterator[None]:
    """Make SIGTERM, which schedulers send to end a job, interrupt the block as Ctrl-C does."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    with _handling(interrupt, signal.SIGTERM):
        yield


@contextmanager
def postponed() -> Iterator[StopRequest]:
    """Record SIGINT and SIGTERM within the block instead of raising, to be checked at a safe place.

    Only the main thread receives signals: in any other thread the request stays empty.
    """
    request = StopRequest()

    def note(signum: int, frame: FrameType | None) -> None:
        request.note(signum)

    with _handling(note, signal.SIGINT, signal.SIGTERM):
        yield request


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None], *signums: int) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, handler) for signum in signums}
    try:
        yield
    finally:
        for signum, previous in before.items():
            signal.signal(signum, previous)
