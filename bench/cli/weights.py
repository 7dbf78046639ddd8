"""``bench weights``: the networks that metrics need, and how to get them."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli import options
from bench.errors import BenchError, SkippedError, UnknownNameError

if TYPE_CHECKING:
    from bench.metrics.extractors.weights import DownloadedWeights, WeightFile
    from bench.system.paths import Resources

INDENT = "\n    "


@click.group("weights")
def command() -> None:
    """Show or download the networks that metrics need."""


@command.command()
@options.data_root
@options.weights
def status(data_root: Path | None, weights: tuple[str, ...]) -> None:
    """Show which networks are here, where the others come from, and which metrics need them."""
    for entry in entries(_resources(data_root, weights)):
        click.echo(entry)


@command.command()
@click.argument("names", nargs=-1, required=True)
@options.data_root
def fetch(names: tuple[str, ...], data_root: Path | None) -> None:
    """Download the networks NAMES, or all, into the cache and check their hashes."""
    resources, known = _resources(data_root, ()), _downloads()
    wanted = list(known) if "all" in names else list(dict.fromkeys(names))
    for name in wanted:
        if name not in known:
            raise UnknownNameError("network to download", name, known)
    failed = []
    for name in wanted:
        try:
            click.echo(f"{name}: here, {known[name].obtain(resources, asked=True)}")
        except SkippedError as error:
            failed.append(str(error))
    if failed:
        raise BenchError("; ".join(failed))


def _resources(data_root: Path | None, weights: tuple[str, ...]) -> "Resources":
    from bench.system.paths import Resources, cache_folder, weight_files
    from bench.system.paths import data_root as checked

    return Resources(checked(data_root), weight_files(weights), cache_folder())


def _downloads() -> "dict[str, DownloadedWeights]":
    """Return the files that extractors download, by name."""
    from bench.metrics.extractors.weights import DownloadedWeights
    from bench.registry import extractors

    found = {}
    for name in extractors.names():
        if extractors.error(name) is None:
            for file in extractors.load(name).weight_files:
                if isinstance(file, DownloadedWeights):
                    found[file.name] = file
    return found


def entries(resources: "Resources") -> Iterator[str]:
    """Yield the state of the weights that each metric needs, without a download."""
    from bench.metrics.extractors.extractor import why_unavailable
    from bench.registry import extractors

    metrics, errors = _metrics_by_extractor()
    files: dict[WeightFile, set[str]] = {}
    for name in sorted({*extractors.names(), *metrics}):
        try:
            extractor = extractors.load(name)
        except BenchError as error:
            errors.append(str(error))
            continue
        users = metrics.get(name, set())
        for file in extractor.weight_files:
            files.setdefault(file, set()).update(users)
        if users and not extractor.weight_files:
            reason = why_unavailable(extractor, resources)
            state = f"cannot be used: {reason}." if reason else "here, in a package."
            yield _entry(name, state, users)
    for file, users in files.items():
        if users:
            yield _entry(file.name, _state(file, resources), users)
    yield from errors


def _metrics_by_extractor() -> tuple[dict[str, set[str]], list[str]]:
    """Return the metrics that need each extractor, and why some metrics cannot say so."""
    from bench.registry import metrics

    needed: dict[str, set[str]] = {}
    errors = []
    for name in metrics.names():
        try:
            for extractor in metrics.attribute(name, "extractors"):
                needed.setdefault(extractor, set()).add(name)
        except (BenchError, AttributeError, TypeError) as error:
            errors.append(f"The metric {name!r} does not say which weights it needs: {error}")
    return needed, errors


def _state(file: "WeightFile", resources: "Resources") -> str:
    problem = file.problem(resources)
    path = file.path(resources)
    if problem is None:
        return f"here, {path}."
    state = "cannot be used" if path.exists() else "not here"
    return f"{state}: {problem}.{INDENT}{file.advice}"


def _entry(name: str, state: str, metrics: Iterable[str]) -> str:
    return f"{name}: {state}{INDENT}Needed by: {', '.join(sorted(metrics))}"
