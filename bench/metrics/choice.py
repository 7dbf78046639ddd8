"""Choice of the metrics that are computed: names, patterns and presets."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from bench.errors import BenchError

PRESETS: Mapping[str, tuple[str, ...]] = {
    "all": ("*",),
    # No network but FAD's small autoencoder, and one pass over images each.
    "fast": (
        "reconstruction_loss",
        "psnr",
        "ssim",
        "fad",
        "autoencoder_*",
        "firing_rate",
        "dead_neurons",
        "saturated_neurons",
        "synaptic_operations_*",
        "energy",
        "parameter_count",
        "footprint",
        "*_throughput",
        "*_graph_replays",
        "peak_memory",
    ),
    # The columns of the papers' tables, as published and corrected.
    "paper": (
        "reconstruction_loss",
        "reconstruction_loss_official",
        "fid",
        "fid_clean",
        "fid_official",
        "inception_score",
        "inception_score_official",
        "fad",
        "fad_official",
        "firing_rate",
        "synaptic_operations_*",
    ),
}
"""Patterns of the metrics that a preset stands for."""


def chosen_metrics(
    asked: Iterable[str], skipped: Iterable[str], known: Sequence[str]
) -> frozenset[str]:
    """Return the names of the metrics to compute.

    Args:
        asked: names, patterns with ``*`` and ``?``, and presets.
        skipped: the same, of metrics to leave out.
        known: names of all metrics.

    Raises:
        BenchError: a name or pattern fits no metric, or no metric is left.

    >>> sorted(chosen_metrics(["f*"], ["*_slope"], ["fad", "fid", "fid_slope", "psnr"]))
    ['fad', 'fid']
    """
    left = _matching(asked, known) - _matching(skipped, known)
    if not left:
        raise BenchError("No metric is left to compute: ask for more, or skip fewer.")
    return frozenset(left)


def _matching(patterns: Iterable[str], known: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for given in patterns:
        fits = {
            name
            for name in known
            for pattern in PRESETS.get(given, (given,))
            if fnmatchcase(name, pattern)
        }
        if not fits:
            raise BenchError(_no_metric(given, known))
        found |= fits
    return found


def _no_metric(given: str, known: Sequence[str]) -> str:
    close = get_close_matches(given, [*known, *PRESETS])
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return (
        f"No metric fits {given!r}.{hint} `bench ls metrics` lists them; presets are "
        f"{', '.join(PRESETS)}."
    )
