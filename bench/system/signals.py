"""Handling of Ctrl-C, SIGTERM and a time limit: interruption at once or at a safe place.

Python drops an exception that is raised in a finaliser or in a callback of its garbage collector. A
handler therefore records a signal before it raises, and the next safe place looks at the record.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from bench.errors import BenchError


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


class TimeLimitReached(Interrupted):
    """The time limit has stopped the run."""


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
        raises = self._at_once or self.signum is not None
        self.signum = signum
        if raises:
            raise Interrupted(signum)


class _Interrupting:
    """A handler that raises, and records the signal for :func:`raise_unheard`."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        raise Interrupted(signum)


@contextmanager
def terminable() -> Iterator[None]:
    """Make SIGTERM, which schedulers send to end a job, interrupt the block as Ctrl-C does."""
    with _handling(_Interrupting(), signal.SIGTERM):
        yield


def raise_unheard() -> None:
    """Raise for a signal that came within :func:`terminable` and did not interrupt it.

    Raises:
        Interrupted: if there was one.
    """
    handler = _interrupting()
    if handler is not None and handler.signum is not None:
        raise Interrupted(handler.signum)


def _interrupting() -> _Interrupting | None:
    """Return the handler of :func:`terminable`, if it is active and this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return None
    handler = signal.getsignal(signal.SIGTERM)
    return handler if isinstance(handler, _Interrupting) else None


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Stop the block after a time as SIGTERM does: this process sends the signal to itself.

    The block must handle SIGTERM, as :func:`terminable` and :func:`postponed` do.

    Args:
        seconds: the time limit; None for no limit.

    Raises:
        BenchError: if this is not the main thread, which alone receives signals.
        TimeLimitReached: if the limit has stopped the block.
    """
    if seconds is None:
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        raise BenchError("A time limit needs the main thread: run without it in other threads.")
    reached = threading.Event()

    def stop() -> None:
        reached.set()
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), stop)
    timer.daemon = True
    timer.start()
    try:
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
    except (Interrupted, SystemExit) as error:
        # Ray's own handler, active while it starts, turns the signal into SystemExit.
        if reached.is_set():
            raise TimeLimitReached(signal.SIGTERM, getattr(error, "saved", "")) from error
        raise


@contextmanager
def postponed() -> Iterator[StopRequest]:
    """Record SIGINT and SIGTERM within the block instead of raising, to be checked at a safe place.

    The request has a signal from before the block that was not heard; :func:`raise_unheard` raises
    for one that the block did not check. Only the main thread receives signals: in any other thread
    the request stays empty.
    """
    request, outer = StopRequest(), _interrupting()
    if outer is not None:
        request.signum = outer.signum

    def note(signum: int, frame: FrameType | None) -> None:
        request.note(signum)

    with _handling(note, signal.SIGINT, signal.SIGTERM):
        yield request
    if outer is not None:
        outer.signum = request.signum


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
