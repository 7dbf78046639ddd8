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
        plan: cells and datasets.
        metrics: classes of the metrics to observe, by name.
        out: run directory.
        device: requested device.
        resources: places of weights and of the cache.
        interval: interval between checkpoints.
        jobs: number of worker processes; 1 to run in this process.
        cluster: Ray cluster to run on; None for this machine.
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


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A request to run a selection of cells: the arguments of :func:`run`, not yet checked.

    Attributes:
        download: True to download missing datasets; else their cells are skipped.
    """

    models: str | Iterable[str] = ALL
    datasets: str | Iterable[str] = "digits"
    backends: str | Iterable[str] = ALL
    protocol: str | Path | Protocol = "smoke"
    settings: Iterable[str] = ()
    seeds: Iterable[int] | None = None
    out: str | Path | None = None
    data_root: str | Path | None = None
    device: str = "auto"
    weights: Iterable[str] = ()
    checkpoint_every: str = CHECKPOINT_EVERY
    retry: str | None = None
    jobs: int = 1
    executor: str = LOCAL
    address: str | None = None
    cpus_per_cell: int = 1
    gpus_per_cell: float | None = None
    download: bool = True


def prepare(request: RunRequest) -> Job:
    """Check a request completely, before anything is written.

    Raises:
        BenchError: a user error in the request.
    """
    selection = _selection(request)
    cluster = _cluster(request)
    if cluster is None:
        resolve_device(request.device)
    interval = Interval.parse(request.checkpoint_every)
    _check_number("Jobs", request.jobs)
    name = safe_name(selection.protocol.name)
    folder = DEFAULT_OUT / name if request.out is None else Path(request.out)
    directory = RunDirectory(folder)
    metrics = {name: registry.metrics.load(name) for name in registry.metrics.names()}
    plan = make_plan(selection, request.download)
    asked = _asked(request, selection, plan)
    resources = Resources(selection.data_root, _weights(request.weights), cache_folder())
    plan = plan.with_extractors(trained_extractors(metrics.values()))
    if request.retry is not None:
        plan = _failed(plan, directory, request.retry)
    return Job(
        plan=plan,
        metrics=metrics,
        out=folder,
        device=request.device,
        resources=resources,
        interval=interval,
        jobs=request.jobs,
        cluster=cluster,
        asked=asked,
    )


def _asked(request: RunRequest, selection: Request, plan: Plan) -> dict[str, Any]:
    """Return the request in words, for the record."""
    return {
        "models": list(selection.models),
        "backends": list(selection.backends),
        "datasets": list(selection.datasets),
        "protocol": selection.protocol.name,
        "seeds": sorted({cell.seed for cell in plan.cells}),
        "device": request.device,
    }


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
    """Return the rows of a plan's cells, in its order."""
    places = {cell.key: place for place, cell in enumerate(plan.cells)}
    rows = rows[rows["cell_key"].isin(places)]
    return rows.sort_values(
        "cell_key", key=lambda keys: keys.map(places), kind="stable", ignore_index=True
    )


def _cluster(request: RunRequest) -> Cluster | None:
    """Return the Ray cluster of a request; None for this machine."""
    if request.executor not in EXECUTORS:
        raise BenchError(f"Executor {request.executor!r}: expected {' or '.join(EXECUTORS)}.")
    cluster = Cluster(request.address, request.cpus_per_cell, request.gpus_per_cell)
    if request.executor == LOCAL:
        if cluster != Cluster():
            raise BenchError("An address, CPUs and GPUs per cell are for the executor ray.")
        return None
    if request.jobs != 1:
        raise BenchError("Jobs are for the executor local: ray runs as many cells as fit.")
    _check_number("CPUs per cell", cluster.cpus)
    if cluster.gpus is not None and not cluster.gpus >= 0:
        raise BenchError(f"GPUs per cell: expected a number from 0, got {cluster.gpus!r}.")
    return cluster


def _failed(plan: Plan, directory: RunDirectory, retry: str) -> Plan:
    """Return the plan without the cells that did not fail before."""
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
    """Train and score a selection of cells, as ``bench run`` does.

    Args:
        models: registered names, or ``"all"``.
        datasets: registered names, ``"NAME=PATH"``, ``"folder:PATH"``, ``"npz:PATH"``, or
            ``"all"``, under which an unavailable dataset gets ``skipped`` rows.
        backends: registered names of spiking backends, or ``"all"``.
        protocol: built-in name, path of a TOML file, or a Protocol.
        settings: changed values of the protocol, each ``"key=value"``.
        seeds: whole numbers from 0; the protocol's own if None.
        out: run directory, ``runs/<protocol>`` if None. Its existing results are kept.
        data_root: folder where datasets are looked for and downloaded to.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        weights: files of network weights that metrics need, each ``"NAME=PATH"``.
        checkpoint_every: interval between checkpoints of a training: ``"30s"``, ``"10min"``,
            ``"1h"``, ``"2epochs"`` or ``"never"``. An interruption writes one too.
        retry: ``"failed"`` to run only the cells that failed before.
        jobs: worker processes, which share the CPU's threads and take the GPUs in turn; a script
            that sets more than 1 needs the usual ``if __name__ == "__main__":``.
        executor: ``local``, or ``ray`` for a Ray cluster.
        address: address of a running Ray cluster; None to start one on this machine.
        cpus_per_cell: CPUs of the cluster per cell, which are its threads.
        gpus_per_cell: GPUs of the cluster per cell, also a fraction; None for one if there are any.
        reporter: receiver of the progress; None for no reports.

    Returns:
        The rows of the selected cells, one observation each, as ``results.parquet`` has them.

    Raises:
        BenchError: a user error in the request; nothing is written then.
        OutputError: the run directory can no longer be written; finished cells are kept.
        Interrupted: Ctrl-C or SIGTERM; the current cell is kept as a checkpoint.
    """
    request = RunRequest(
        models=models, datasets=datasets, backends=backends, protocol=protocol, settings=settings,
        seeds=seeds, out=out, data_root=data_root, device=device, weights=weights,
        checkpoint_every=checkpoint_every, retry=retry, jobs=jobs, executor=executor,
        address=address, cpus_per_cell=cpus_per_cell, gpus_per_cell=gpus_per_cell,
    )  # fmt: skip
    return execute(prepare(request), reporter)


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
    """Measure how fast models train, reconstruct and sample, as ``bench profile`` does.

    Args:
        models: registered names, or ``"all"``.
        datasets: datasets to take one batch from; see :func:`run`.
        backends: registered names of spiking backends, or ``"all"``.
        protocol: protocol of the models, which are built from its first seed; see :func:`run`.
        settings: changed values of the protocol, each ``"key=value"``.
        data_root: folder where datasets are looked for and downloaded to.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        batch_size: images per call; the protocol's if None.
        repeats: timed calls of each kind, at least 1, after one to warm up.
        reporter: receiver of the progress; None for no reports.

    Returns:
        Rows of one number each. ``quantity`` is ``images_per_second`` (median; ``low`` and ``high``
        are the slowest and the fastest call), ``peak_memory`` (bytes) or ``seconds`` by ``layer``
        and ``phase`` of the fastest call that was timed by layer; its row without a layer is the
        sum of the others. A number that is unavailable is a row with a ``reason`` and no value.

    Raises:
        BenchError: a user error in the request.
    """
    _check_number("Repeats", repeats)
    if batch_size is not None:
        settings = [*settings, f"batch_size={batch_size}"]
    request = RunRequest(
        models=models,
        datasets=datasets,
        backends=backends,
        protocol=protocol,
        settings=settings,
        data_root=data_root,
    )
    selection = _selection(request)
    plan = make_plan(replace(selection, seeds=selection.protocol.seeds[:1]))
    keep_freed_memory()
    with full_precision():
        return profile_cells(plan, resolve_device(device), repeats, reporter or Reporter())


def _check_number(what: str, number: int) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise BenchError(f"{what}: expected a whole number from 1, got {number!r}.")


def _selection(request: RunRequest) -> Request:
    """Return the cells that a request selects."""
    return Request(
        models=_names(request.models),
        backends=_names(request.backends),
        datasets=_names(request.datasets),
        protocol=_protocol(request.protocol, list(request.settings)),
        seeds=None if request.seeds is None else tuple(request.seeds),
        data_root=checked_data_root(request.data_root),
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
        known = {file.name for extractor in extractors for file in extractor.weight_files}
        for name in files:
            if name not in known:
                raise UnknownNameError("weights", name, known)
    return files


def _names(names: str | Iterable[str]) -> tuple[str, ...]:
    listed = names.split(",") if isinstance(names, str) else list(names)
    if not all(isinstance(name, str) for name in listed):
        raise BenchError(f"Expected names, got {listed!r}.")
    return tuple(name.strip() for name in listed if name.strip())
