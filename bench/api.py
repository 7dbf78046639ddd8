"""The public functions on a selection of cells: run it, profile it."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from bench import registry
from bench.errors import BenchError, UnknownNameError
from bench.execution.extractor_cell import METRICS as EXTRACTOR_METRICS
from bench.execution.extractor_cell import trained_extractors
from bench.execution.processes import run_in_processes
from bench.execution.ray_driver import Cluster, run_on_cluster
from bench.execution.run_context import Work
from bench.execution.serial import run_serially
from bench.metrics.metric import Metric
from bench.plan import ALL, Plan, Request, make_plan, safe_name
from bench.profiling.profile_rows import profile_cells
from bench.protocol import Protocol, load_protocol, parse_settings
from bench.store.declarations import METRICS, record
from bench.store.run_directory import RunDirectory
from bench.system.devices import full_precision, resolve_device, resolve_devices
from bench.system.environment import environment
from bench.system.garbage import existing_objects_spared
from bench.system.memory import keep_freed_memory
from bench.system.paths import Resources, cache_folder, weight_files
from bench.system.paths import data_root as checked_data_root
from bench.system.progress import Reporter
from bench.system.signals import terminable
from bench.training.checkpoints import Interval

DEFAULT_OUT = Path("runs")
CHECKPOINT_EVERY = "10min"
FAILED = "failed"
LOCAL, RAY = EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class Job:
    """A checked request, ready to run.

    Attributes:
        plan: its cells.
        metrics: classes of the metrics to observe, by name.
        out: the run directory.
        device: as asked.
        resources: where metrics find weights and keep what they compute once.
        interval: how often a checkpoint is written.
        jobs: worker processes; with 1, all runs in this one.
        cluster: where the cells run; None for this machine.
        asked: the request in words, for the record.
    """

    plan: Plan
    metrics: dict[str, type[Metric]]
    out: Path
    device: str
    resources: Resources
    interval: Interval
    jobs: int
    cluster: Cluster | None
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
    checkpoint_every: str = CHECKPOINT_EVERY,
    retry: str | None = None,
    jobs: int = 1,
    executor: str = LOCAL,
    address: str | None = None,
    cpus_per_cell: int = 1,
    gpus_per_cell: float | None = None,
    download: bool = True,
) -> Job:
    """Check a request whole, before anything is written; see :func:`run` for the arguments.

    Raises:
        BenchError: a mistake in what was asked.
    """
    chosen = _protocol(protocol, list(settings))
    request = _request(models, datasets, backends, chosen, seeds, data_root)
    cluster = _cluster(executor, address, cpus_per_cell, gpus_per_cell, jobs)
    if cluster is None:
        resolve_device(device)
    interval = Interval.parse(checkpoint_every)
    _check_number("Jobs", jobs)
    folder = Path(out) if out is not None else DEFAULT_OUT / safe_name(chosen.name)
    directory = RunDirectory(folder)
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
    if retry is not None:
        plan = _failed(plan, directory, retry)
    return Job(plan, metrics, folder, device, resources, interval, jobs, cluster, asked)


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
            METRICS: record({**job.metrics, **EXTRACTOR_METRICS}),
        }
    )
    work = Work(directory, job.metrics, run_id, job.resources, job.interval)
    with terminable(), existing_objects_spared():
        _run_cells(job, work, reporter or Reporter())
    return _selected(directory.collect(), job.plan)


def _run_cells(job: Job, work: Work, reporter: Reporter) -> None:
    if job.cluster is not None:
        run_on_cluster(job.plan, work, job.device, reporter, job.cluster)
    elif job.jobs == 1:
        run_serially(job.plan, work, resolve_device(job.device), reporter)
    else:
        run_in_processes(job.plan, work, resolve_devices(job.device), reporter, job.jobs)


def _selected(rows: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """The rows of a plan's cells, in its order."""
    places = {cell.key: place for place, cell in enumerate(plan.cells)}
    rows = rows[rows["cell_key"].isin(places)]
    return rows.sort_values(
        "cell_key", key=lambda keys: keys.map(places), kind="stable", ignore_index=True
    )


def _cluster(
    executor: str, address: str | None, cpus: int, gpus: float | None, jobs: int
) -> Cluster | None:
    if executor not in EXECUTORS:
        raise BenchError(f"Executor {executor!r}: expected {' or '.join(EXECUTORS)}.")
    cluster = Cluster(address, cpus, gpus)
    if executor == LOCAL:
        if cluster != Cluster():
            raise BenchError("An address, CPUs and GPUs per cell are for the executor ray.")
        return None
    if jobs != 1:
        raise BenchError("Jobs are for the executor local: ray runs as many cells as fit.")
    _check_number("CPUs per cell", cpus)
    if gpus is not None and not gpus >= 0:
        raise BenchError(f"GPUs per cell: expected a number from 0, got {gpus!r}.")
    return cluster


def _failed(plan: Plan, directory: RunDirectory, retry: str) -> Plan:
    """The plan without the cells that did not fail before."""
    if retry != FAILED:
        raise BenchError(f"Retry {retry!r}: expected {FAILED!r}.")
    return replace(plan, cells=tuple(c for c in plan.cells if directory.cell(c).failed()))


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
    checkpoint_every: str = CHECKPOINT_EVERY,
    retry: str | None = None,
    jobs: int = 1,
    executor: str = LOCAL,
    address: str | None = None,
    cpus_per_cell: int = 1,
    gpus_per_cell: float | None = None,
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
        checkpoint_every: how often a training is written down: ``"30s"``, ``"10min"``, ``"1h"``,
            ``"2epochs"`` or ``"never"``. An interruption writes it down too.
        retry: ``"failed"`` for the cells that failed before, and nothing else.
        jobs: worker processes, which share the CPU's threads and take the GPUs in turn; a script
            that asks for more than 1 needs the usual ``if __name__ == "__main__":``.
        executor: ``local``, or ``ray`` for a Ray cluster.
        address: of a running Ray cluster; one is started on this machine if None.
        cpus_per_cell: of the cluster, and threads.
        gpus_per_cell: of the cluster, a fraction too; None for one if the cluster has any.
        reporter: is told of the progress; nobody if None.

    Returns:
        The rows of the selected cells, one observation each, as ``results.parquet`` has them.

    Raises:
        BenchError: a mistake in what was asked; nothing is written then.
        OutputError: the run directory can no longer be written; what was finished is kept.
        Interrupted: by Ctrl-C or SIGTERM; what was under way is kept as a checkpoint.
    """
    job = prepare(
        models, datasets, backends, protocol, settings, seeds, out, data_root, device, weights,
        checkpoint_every, retry, jobs, executor, address, cpus_per_cell, gpus_per_cell,
    )  # fmt: skip
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
    _check_number("Repeats", repeats)
    chosen = _protocol(protocol, list(settings))
    if batch_size is not None:
        chosen = chosen.customised({"batch_size": batch_size})
    request = _request(models, datasets, backends, chosen, chosen.seeds[:1], data_root)
    plan = make_plan(request)
    keep_freed_memory()
    with full_precision():
        return profile_cells(plan, resolve_device(device), repeats, reporter or Reporter())


def _check_number(what: str, number: int) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise BenchError(f"{what}: expected a whole number from 1, got {number!r}.")


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
