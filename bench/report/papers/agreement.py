"""Decide whether a published number and ours were measured by the same rules."""

import shlex
from collections.abc import Hashable, Iterator, Mapping
from functools import cache
from typing import Any

import pandas as pd

from bench.protocol import Protocol, load_protocol
from bench.report.papers.published import MetricMapping
from bench.store.other_neurons import without_mark
from bench.store.schema import (
    COMPLETE,
    FAILED,
    INCOMPLETE,
    NO_BACKEND,
    NOT_ASKED,
    NOT_INSTALLED,
    OK,
    SKIPPED,
)
from bench.system.formatting import short_hash

NO_PROTOCOL = "the suite has no protocol that follows this number"

Published = Mapping[Hashable, Any]
Ours = Mapping[str, Any]


def differences(published: Published, mapping: MetricMapping, ours: Ours) -> Iterator[str]:
    """Yield the differences between how a published number and ours were measured, in words.

    Args:
        published: a row of :func:`bench.report.papers.published.published`.
        mapping: our metrics for the published one.
        ours: ``status``, ``protocol``, ``protocol_hash`` and ``dataset_variant`` of our rows; if
            they have a value also ``epoch_selection``, ``extractor`` and ``images``.
    """
    yield from _protocol_differences(published, ours)
    if ours["dataset_variant"] != COMPLETE:
        yield INCOMPLETE.get(ours["dataset_variant"], "a dataset that is not available")
    if ours["status"] == OK:
        yield from _measurement_differences(published, mapping, ours)
    if published["deviation"]:
        yield published["deviation"]


def worth_running(published: Published, ours: Ours, rows: pd.DataFrame) -> bool:
    """Return True if the paper's protocol gave no number, or did not run on this backend.

    Args:
        published: a row of :func:`bench.report.papers.published.published`.
        ours: ``protocol_hash``, ``backend`` and ``status`` of our rows.
        rows: all our rows of the number's model, dataset and metric.
    """
    if not published["protocol"]:
        return False
    wanted = _hash(published)
    if ours["protocol_hash"] == wanted:
        return ours["status"] in {FAILED, SKIPPED, NOT_INSTALLED, NOT_ASKED, "missing"}
    return ours["backend"] not in set(rows.loc[rows["protocol_hash"] == wanted, "backend"])


def command(published: Published, backend: str | None, out: str) -> str | None:
    """Return the command that computes our value of a published number.

    Args:
        published: a row of :func:`bench.report.papers.published.published`.
        backend: backend to run on; None for the default.
        out: the run directory.

    Returns:
        The command, or None if the suite has no protocol for the number.

    >>> number = {"protocol": "fsvae_paper", "model": "fsvae", "dataset": "mnist"}
    >>> command(number, None, "DIR")
    'bench run --models fsvae --datasets mnist --protocol fsvae_paper --out DIR'
    """
    if not published["protocol"]:
        return None
    words = ["bench", "run", "--models", published["model"], "--datasets", published["dataset"]]
    if backend not in {None, NO_BACKEND}:
        words += ["--backends", without_mark(str(backend))]
    return shlex.join([*words, "--protocol", published["protocol"], "--out", out])


def _protocol_differences(published: Published, ours: Ours) -> Iterator[str]:
    name = published["protocol"]
    if not name:
        yield NO_PROTOCOL
    elif ours["protocol"] != name:
        yield f"protocol {ours['protocol']}, not {name}"
    elif ours["protocol_hash"] != (known := _hash(published)):
        digests = short_hash(ours["protocol_hash"]), short_hash(known)
        yield "{} with hash {}, not {} of this version".format(name, *digests)


def _measurement_differences(
    published: Published, mapping: MetricMapping, ours: Ours
) -> Iterator[str]:
    if not published["protocol"]:
        return
    selection = _load(published["protocol"]).epoch_selection
    if ours["epoch_selection"] != selection:
        yield f"evaluated at the epoch {ours['epoch_selection']}, not {selection}"
    if pd.notna(published["images"]):
        if pd.isna(ours["images"]):
            yield f"an unknown number of images, not {published['images']}"
        elif ours["images"] != published["images"]:
            yield f"{ours['images']} images, not {published['images']}"
    if mapping.extractor not in str(ours["extractor"]):
        yield f"not the paper's extractor but {ours['extractor']}"


def _hash(published: Published) -> str:
    """Return the hash of the paper's protocol as it holds for the number's model and dataset."""
    return _load(published["protocol"]).resolve(published["model"], published["dataset"]).hash


@cache
def _load(name: str) -> Protocol:
    return load_protocol(name)
