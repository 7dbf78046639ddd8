"""The public functions on a selection of cells: run it, profile it."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from bench import registry
from bench.allocator import keep_freed_memory
from bench.devices import full_precision, resolve_device
from bench.errors import BenchError, UnknownNameError
from bench.execution.extractor_cell import METRICS as EXTRACTOR_METRICS
from bench.execution.extractor_cell import trained_extractors
from bench.execution.profiles import profile_cells
from bench.execution.serial import run_serially
from bench.metrics.base import Metric
from bench.plan import ALL, Plan, Request, make_plan, safe_name
from bench.progress import Reporter
from bench.protocol import Protocol, load_protocol, parse_settings
from bench.provenance import environment
from bench.roots import Resources, cache_folder, weight_files
from bench.roots import data_root as checked_data_root
from bench.store import RunDirectory

DEFAULT_OUT = Path("runs")


@dataclass(frozen=True)
class Job:
    """A checked request, ready to run.

    Attributes:
        plan: its cells.
        metrics: classes of the metrics to observe, by name.
        out: the run directory.
        device: as asked.
        resources: where metrics find weights and keep what they compute once.
        asked: the request in words, for the record.
    """

    plan: Plan
    metrics: dict[str, type[Metric]]
    out: Path
    device: str
    resources: Resources
    asked: dict[str, Any]


def prepare(
    models: str | Iterable[str] = ALL,
    datasets: str | Iterable[str] = "digits",
    backends: str | Iterable[str] = ALL,
    protocol: str | Path | Protocol = "smoke",
    settings: Iterable[str] = (),
    seeds: Iterable[int] | None = None,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
    weights: Iterable[str] = (),
    download: bool = True,
) -> Job:
    """Check a request whole, before anything is written; see :func:`run` for the arguments.

    Raises:
        BenchError: a mistake in what was asked.
    """
    chosen = _protocol(protocol, list(settings))
    request = _request(models, datasets, backends, chosen, seeds, data_root)
    resolve_device(device)
    folder = Path(out) if out is not None else DEFAULT_OUT / safe_name(chosen.name)
    RunDirectory(folder)
    metrics = {name: registry.metrics.load(name) for name in registry.metrics.names()}
    plan = make_plan(request, download)
    asked = {
        "models": list(request.models),
        "backends": list(request.backends),
        "datasets": list(request.datasets),
        "protocol": chosen.name,
        "seeds": sorted({cell.seed for cell in plan.cells}),
        "device": device,
    }
    resources = Resources(request.data_root, _weights(weights), cache_folder())
    plan = plan.with_extractors(trained_extractors(metrics.values()))
    return Job(plan, metrics, folder, device, resources, asked)


def execute(job: Job, reporter: Reporter | None = None) -> pd.DataFrame:
    """Run what is missing of a job and return the rows of its cells."""
    keep_freed_memory()
    run_id = uuid.uuid4().hex
    directory = RunDirectory(job.out)
    directory.begin(
        {
            "run_id": run_id,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "asked": job.asked,
            "cells": [cell.key for cell in job.plan.cells],
            "environment": environment(),
            "metrics": {
                name: {"tolerance": metric.tolerance, "reproducible": metric.reproducible}
                for name, metric in {**job.metrics, **EXTRACTOR_METRICS}.items()
            },
        }
    )
    device = resolve_device(job.device)
    return run_serially(
        job.plan, directory, job.metrics, device, run_id, reporter or Reporter(), job.resources
    )


def run(
    models: str | Iterable[str] = ALL,
    datasets: str | Iterable[str] = "digits",
    backends: str | Iterable[str] = ALL,
    protocol: str | Path | Protocol = "smoke",
    settings: Iterable[str] = (),
    seeds: Iterable[int] | None = None,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
    weights: Iterable[str] = (),
    reporter: Reporter | None = None,
) -> pd.DataFrame:
    """Train and score a selection of cells; what ``bench run`` does.

    Args:
        models: registered names, or ``"all"``.
        datasets: registered names, ``"NAME=PATH"``, ``"folder:PATH"``, ``"npz:PATH"``, or
            ``"all"``, under which a dataset that cannot be had becomes ``skipped`` rows.
        backends: spiking backends by registered name, or ``"all"``.
        protocol: a built-in name, the path of a TOML file, or a Protocol.
        settings: single values of the protocol to change, each ``"key=value"``.
        seeds: whole numbers from 0; the protocol's own if None.
        out: the run directory, ``runs/<protocol>`` if None. What it holds already is kept.
        data_root: where datasets are looked for and downloaded to.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        weights: files of network weights that metrics need, each ``"NAME=PATH"``.
        reporter: is told of the progress; nobody if None.

    Returns:
        The rows of the selected cells, one observation each, as ``results.parquet`` has them.

    Raises:
        BenchError: a mistake in what was asked; nothing is written then.
    """
    job = prepare(
        models, datasets, backends, protocol, settings, seeds, out, data_root, device, weights
    )
    return execute(job, reporter)


def profile(
    models: str | Iterable[str] = ALL,
    datasets: str | Iterable[str] = "digits",
    backends: str | Iterable[str] = ALL,
    protocol: str | Path | Protocol = "smoke",
    settings: Iterable[str] = (),
    data_root: str | Path | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    repeats: int = 5,
    reporter: Reporter | None = None,
) -> pd.DataFrame:
    """Measure how fast models train, reconstruct and sample; what ``bench profile`` does.

    Args:
        models: as those of :func:`run`, like all that is not told here.
        datasets: likewise.
        backends: likewise.
        protocol: what the models are built by, from its first seed.
        settings: likewise.
        data_root: likewise.
        device: likewise.
        batch_size: images a call; the protocol's if None.
        repeats: timed calls of each kind, from 1, after one to warm up.
        reporter: is told of the progress; nobody if None.

    Returns:
        One number a row: ``quantity`` is ``images_per_second`` (median; ``low`` and ``high`` are
        of the slowest and the fastest call), ``peak_memory`` (bytes) or ``seconds`` by
        ``layer`` and ``phase`` of a call, the fastest of those timed by layer; the row without
        a layer is the sum of the others. A number that could not be had is a row with a
        ``reason`` and no value.

    Raises:
        BenchError: a mistake in what was asked.
    """
    if not isinstance(repeats, int) or isinstance(repeats, bool) or repeats < 1:
        raise BenchError(f"Repeats: expected a whole number from 1, got {repeats!r}.")
    chosen = _protocol(protocol, list(settings))
    if batch_size is not None:
        chosen = chosen.customised({"batch_size": batch_size})
    request = _request(models, datasets, backends, chosen, chosen.seeds[:1], data_root)
    plan = make_plan(request)
    keep_freed_memory()
    with full_precision():
        return profile_cells(plan, resolve_device(device), repeats, reporter or Reporter())


def _request(
    models: str | Iterable[str],
    datasets: str | Iterable[str],
    backends: str | Iterable[str],
    protocol: Protocol,
    seeds: Iterable[int] | None,
    data_root: str | Path | None,
) -> Request:
    return Request(
        models=_names(models),
        backends=_names(backends),
        datasets=_names(datasets),
        protocol=protocol,
        seeds=None if seeds is None else tuple(seeds),
        data_root=checked_data_root(data_root),
    )


def _protocol(protocol: str | Path | Protocol, settings: list[str]) -> Protocol:
    if isinstance(protocol, Protocol):
        return protocol.customised(parse_settings(settings))
    return load_protocol(protocol, settings)


def _weights(given: Iterable[str]) -> dict[str, Path]:
    """Weight files by name, each of a name that some extractor takes."""
    files = weight_files(given)
    if files:
        extractors = [registry.extractors.load(name) for name in registry.extractors.names()]
        known = {name for extractor in extractors for name in extractor.weight_names}
        for name in files:
            if name not in known:
                raise UnknownNameError("weights", name, known)
    return files


def _names(names: str | Iterable[str]) -> tuple[str, ...]:
    listed = names.split(",") if isinstance(names, str) else list(names)
    if not all(isinstance(name, str) for name in listed):
        raise BenchError(f"Expected names, got {listed!r}.")
    return tuple(name.strip() for name in listed if name.strip())
