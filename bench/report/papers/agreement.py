"""Whether a published number and ours were made by the same rules, and what to run if not."""

import shlex
from collections.abc import Hashable, Iterator, Mapping
from functools import cache
from typing import Any

import pandas as pd

from bench.protocol import Protocol, load_protocol
from bench.report.papers.published import Answer
from bench.store.run_directory import INCOMPLETE

NO_BACKEND = "torch"

Number = Mapping[Hashable, Any]


def differences(number: Number, answer: Answer, found: Mapping[str, Any]) -> Iterator[str]:
    """What keeps ours from being measured as the published number was, in words.

    Args:
        number: a row of :func:`bench.report.papers.published.published`.
        answer: our side of its metric.
        found: of our rows ``status``, ``protocol``, ``protocol_hash`` and ``dataset_variant``; if
            they have a value also ``epoch_selection``, ``extractor`` and ``images``.
    """
    yield from _protocol_differences(number, found)
    if found["dataset_variant"] != "complete":
        yield INCOMPLETE.get(found["dataset_variant"], "a dataset that could not be had")
    if found["status"] == "ok":
        yield from _measurement_differences(number, answer, found)
    if number["deviation"]:
        yield number["deviation"]


def worth_running(number: Number, found: Mapping[str, Any], ours: pd.DataFrame) -> bool:
    """Whether the paper's protocol ended without a number, or was not run on this backend.

    Args:
        number: as in :func:`differences`.
        found: of our rows ``protocol_hash``, ``backend`` and ``status``.
        ours: all our rows for the number.
    """
    if not number["protocol"]:
        return False
    wanted = _hash(number)
    if found["protocol_hash"] == wanted:
        return found["status"] in {"failed", "skipped", "missing"}
    return found["backend"] not in set(ours.loc[ours["protocol_hash"] == wanted, "backend"])


def command(number: Number, backend: str | None, out: str) -> str | None:
    """What to run for ours to answer a published number; None where nothing can.

    Args:
        number: as in :func:`differences`.
        backend: the one to run on, None for all.
        out: the run directory.
    """
    if not number["protocol"]:
        return None
    words = ["bench", "run", "--models", number["model"], "--datasets", number["dataset"]]
    if backend not in {None, NO_BACKEND}:
        words += ["--backends", str(backend)]
    return shlex.join([*words, "--protocol", number["protocol"], "--out", out])


def _protocol_differences(number: Number, found: Mapping[str, Any]) -> Iterator[str]:
    name = number["protocol"]
    if not name:
        yield "the protocol of a number that is quoted from elsewhere is not known here"
    elif found["protocol"] != name:
        yield f"protocol {found['protocol']}, not {name}"
    elif found["protocol_hash"] != (known := _hash(number)):
        yield f"{name} of hash {found['protocol_hash'][:12]}, not this version's {known[:12]}"


def _measurement_differences(
    number: Number, answer: Answer, found: Mapping[str, Any]
) -> Iterator[str]:
    if not number["protocol"]:
        return
    selection = _paper(number["protocol"]).epoch_selection
    if found["epoch_selection"] != selection:
        yield f"scored at the epoch {found['epoch_selection']}, not {selection}"
    if pd.notna(number["images"]):
        if pd.isna(found["images"]):
            yield f"an unknown number of images, not {number['images']}"
        elif found["images"] != number["images"]:
            yield f"{found['images']} images, not {number['images']}"
    if answer.extractor not in str(found["extractor"]):
        yield f"not the paper's extractor but {found['extractor']}"


def _hash(number: Number) -> str:
    """Return the hash of the paper's protocol as it holds for the number's model and dataset."""
    return _paper(number["protocol"]).resolve(number["model"], number["dataset"]).hash


@cache
def _paper(name: str) -> Protocol:
    return load_protocol(name)
