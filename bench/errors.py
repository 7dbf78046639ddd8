"""What can go wrong because of what was asked, told in one line."""

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """A mistake in what was asked; the command line prints its one line and exits with 2."""


class OutputError(BenchError):
    """What a run writes cannot be written: the disk is full, say. The run stops."""


class UnknownNameError(BenchError):
    """A name that no registry holds; the message suggests near ones and lists what exists."""

    def __init__(self, kind: str, name: str, available: Iterable[str]) -> None:
        known = sorted(available)
        near = difflib.get_close_matches(name, known, n=2)
        suggestion = f" Did you mean: {', '.join(near)}?" if near else ""
        listing = ", ".join(known) or "none"
        super().__init__(f"Unknown {kind} {name!r}.{suggestion} Available: {listing}.")


class DataUnavailableError(BenchError):
    """A dataset that cannot be had here: missing, corrupt, or out of the network's reach."""


def one_line(error: BaseException) -> str:
    """What an exception says, after its type, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


class SkippedError(Exception):
    """Raised where a model, metric or extractor cannot run here; its message says what to do."""
