"""Errors with one-line messages for users, and the error of parts that cannot run here."""

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path


class BenchError(Exception):
    """A mistake in a request. The command line prints its message and exits with code 2."""


class OutputError(BenchError):
    """A failure to write the results of a run, such as a full disk. The run stops."""


class UnknownNameError(BenchError):
    """An unknown name. The message suggests similar names and lists the available ones.

    Args:
        kind: what the name names, such as ``model``.
        name: the unknown name.
        available: all known names.
    """

    def __init__(self, kind: str, name: str, available: Iterable[str]) -> None:
        known = sorted(available)
        near = difflib.get_close_matches(name, known, n=2)
        suggestion = f" Did you mean: {', '.join(near)}?" if near else ""
        listing = ", ".join(known) or "none"
        super().__init__(f"Unknown {kind} {name!r}.{suggestion} Available: {listing}.")


class ContractError(BenchError):
    """A plug-in that can be imported, but lacks what its contract demands."""


class DataUnavailableError(BenchError):
    """A dataset that is missing, corrupt or cannot be downloaded."""


class DatasetWarning(UserWarning):
    """A remark about a dataset, such as files that are left out."""


class SkippedError(Exception):
    """Raised by a metric, extractor, model or backend that cannot run here.

    The message gives the reason and, if possible, a remedy. The rows are ``skipped``, not
    ``failed``.
    """


class NotInstalledError(SkippedError):
    """Raised by a metric or an extractor whose optional package is not installed.

    The message says how to install it. The rows are ``not_installed``, and their cell is complete
    without them.
    """


def one_line(error: BaseException) -> str:
    """Return the type and message of an exception in one line; without one, where it was raised.

    >>> one_line(ValueError("too\\nlong"))
    'ValueError: too long'
    >>> one_line(ValueError())
    'ValueError without a message'
    """
    kind, text = type(error).__name__, " ".join(str(error).split())
    if text:
        return f"{kind}: {text}"
    place = ""
    for frame in traceback.extract_tb(error.__traceback__)[-1:]:
        place = f", raised in {Path(frame.filename).name}, line {frame.lineno}"
    return f"{kind} without a message{place}"
