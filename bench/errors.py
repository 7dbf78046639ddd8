"""The errors that users see, each with a message of one line."""

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """A mistake in what was asked; the command line prints its one line and exits with 2."""


class OutputError(BenchError):
    """A failure to write the results, such as a full disk; it stops the run."""


class UnknownNameError(BenchError):
    """A name that no registry holds; the message suggests near ones and lists what exists."""

    def __init__(self, kind: str, name: str, available: Iterable[str]) -> None:
        known = sorted(available)
        near = difflib.get_close_matches(name, known, n=2)
        suggestion = f" Did you mean: {', '.join(near)}?" if near else ""
        listing = ", ".join(known) or "none"
        super().__init__(f"Unknown {kind} {name!r}.{suggestion} Available: {listing}.")


class DataUnavailableError(BenchError):
    """A dataset that is missing, corrupt or out of reach of the network."""


def one_line(error: BaseException) -> str:
    """Return the type and the message of an exception as one line.

    >>> one_line(ValueError("two\\nlines"))
    'ValueError: two lines'
    """
    return " ".join(f"{type(error).__name__}: {error}".split())


class SkippedError(Exception):
    """Raised where a model, metric or extractor cannot run here; its message says what to do."""
