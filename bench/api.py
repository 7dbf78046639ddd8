"""The public functions ``run``, ``score`` and ``profile``: a request is prepared, then executed."""

import inspect
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pandas as pd

from bench import registry
from bench.errors import BenchError, UnknownNameError
from bench.execution.extractor_cell import METRICS as EXTRACTOR_METRICS
from bench.execution.extractor_cell import keep_trained_weights, trained_extractors
from bench.execution.features_of_images import check_file, reference_statistics
from bench.execution.processes import default_jobs, run_in_processes
from bench.execution.ray_driver import Cluster, run_on_cluster
from bench.execution.references import references
from bench.execution.run_context import RunContext
from bench.execution.sample_files import check_target, write_samples
from bench.execution.sampling import trained_cell
from bench.execution.serial import run_serially
from bench.execution.weights_cell import check_weights
from bench.metrics.choice import chosen_metrics
from bench.metrics.extractors.reference_statistics import Provenance, write_statistics
from bench.metrics.metric import Metric
from bench.metrics.unusable import load_metric
from bench.plan.cells import Cell
from bench.plan.run_plan import Plan, make_plan
from bench.plan.score_plan import make_images_plan, make_weights_plan
from bench.profiling.profile_rows import profile_cells
from bench.request import (
    EXECUTORS,
    LOCAL,
    ProfileRequest,
    RunRequest,
    ScoreRequest,
    StatisticsRequest,
)
from bench.store.declarations import METRICS, record
from bench.store.run_directory import RunDirectory
from bench.store.schema import DATASET, EXTRACTOR, FAILED, MODEL
from bench.system.devices import resolve_device, resolve_devices
from bench.system.environment import environment
from bench.system.formatting import duration_seconds
from bench.system.memory import existing_objects_spared, keep_freed_memory
from bench.system.paths import Resources, cache_folder, safe_name, weight_files
from bench.system.progress import Reporter, requested
from bench.system.signals import TimeLimitReached, terminable, time_limit
from bench.tracking.cell_trackers import Tracking
from bench.tracking.tracker import Tracker
from bench.training.checkpoints import Interval

DEFAULT_OUT = Path("runs")

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class PreparedRun:
    """A checked request with its cells.

    Attributes:
        request: the request.
        plan: the cells of the request.
        context: context of the run.
        cluster: cluster that runs the cells; None for this machine.
        asked: the request as ``run.json`` records it.
        seconds: time limit in seconds; None for no limit.
    """

    request: RunRequest
    plan: Plan
    context: RunContext
    cluster: Cluster | None
    asked: dict[str, Any]
    seconds: float | None


def takes(
    request_class: Callable[P, R],
) -> Callable[[Callable[[R], pd.DataFrame]], Callable[P, pd.DataFrame]]:
    """Let a function of one request be called with the fields of the request as arguments."""

    def decorate(function: Callable[[R], pd.DataFrame]) -> Callable[P, pd.DataFrame]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> pd.DataFrame:
            return function(request_class(*args, **kwargs))

        fields = inspect.signature(request_class).replace(return_annotation=pd.DataFrame)
        call.__signature__ = fields  # type: ignore[attr-defined]
        return call

    return decorate


@takes(RunRequest)
def run(request: RunRequest) -> pd.DataFrame:
    """Train and evaluate models on datasets, as ``bench run`` does.

    Args:
        request: given as keyword arguments, which are the fields of
            :class:`bench.request.RunRequest`; the first four can be given by position.

    Returns:
        Rows of the requested cells, one observation each, with the columns of ``results.parquet``.

    Raises:
        BenchError: if the request contains a mistake; nothing is written then.
        OutputError: if the run directory can no longer be written; finished cells are kept.
        Interrupted: if Ctrl-C or SIGTERM stops the run, after a checkpoint was saved; the subclass
            TimeLimitReached, if the time limit does.
    """
    prepared = prepare(request)
    with requested(request.reporter) as reporter:
        return execute(prepared, reporter)


@takes(ScoreRequest)
def score(request: ScoreRequest) -> pd.DataFrame:
    """Score images that exist, or a model whose weights exist, as ``bench score`` does.

    Args:
        request: given as keyword arguments, which are the fields of
            :class:`bench.request.ScoreRequest`; the first four can be given by position.

    Returns:
        Rows of what is scored, one observation each, with the columns of ``results.parquet``;
        images have the backend ``external``.

    Raises:
        BenchError: if the request contains a mistake; nothing is written then.
        OutputError: if the run directory cannot be written.
    """
    prepared = prepare_score(request)
    with requested(request.reporter) as reporter:
        return execute(prepared, reporter)


def sample(
    run: str | Path,
    *,
    model: str,
    n: int,
    out: str | Path,
    backend: str | None = None,
    dataset: str | None = None,
    seed: int | None = None,
    device: str = "auto",
) -> None:
    """Write samples of a trained model to a file or folder, as ``bench sample`` does.

    Args:
        run: the run directory.
        model: name of the model.
        n: number of images, at least 1.
        out: path that does not exist yet: ``.npz``, ``.npy``, ``.safetensors``, or a folder.
        backend: its backend; None if the run has one.
        dataset: its dataset; None if the run has one.
        seed: its seed; None if the run has one.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Raises:
        BenchError: if there is no such model, or the path cannot be used.
    """
    _check_count("Number of images", n)
    check_target(Path(out))
    wanted = {"model": model, "backend": backend, "dataset": dataset, "seed": seed}
    cell = trained_cell(Path(run), wanted)
    write_samples(cell.samples(n, resolve_device(device)), Path(out))


def statistics(request: StatisticsRequest) -> Provenance:
    """Write reference statistics to a file, as ``bench stats`` does, and return their origin.

    Args:
        request: images, extractor and file.

    Raises:
        BenchError: if the request contains a mistake, or images or extractor are unavailable;
            nothing is written then.
    """
    check_file(Path(request.out))
    device, resources = resolve_device(request.device), _resources(request.base)
    found = reference_statistics(request, resources, device)
    assert found.provenance is not None
    write_statistics(found, Path(request.out))
    return found.provenance


@takes(ProfileRequest)
def profile(request: ProfileRequest) -> pd.DataFrame:
    """Measure how fast models train, reconstruct, sample and are scored, as ``bench profile`` does.

    Args:
        request: given as keyword arguments, which are the fields of
            :class:`bench.request.ProfileRequest`; the first four can be given by position.

    Returns:
        One number per row. ``quantity`` is ``images_per_second`` (the median; ``low`` and ``high``
        are the slowest and the fastest call), ``peak_memory`` (bytes), or ``seconds`` by ``layer``
        and ``phase`` in the fastest instrumented call; the row without a layer is the sum of the
        others. A number that is unavailable is a row with a ``reason`` and no value.

    Raises:
        BenchError: if the request contains a mistake.
    """
    _check_count("Repeats", request.repeats)
    if request.batch_size is not None:
        settings = (*request.settings, f"batch_size={request.batch_size}")
        request = replace(request, settings=settings)
    plan = make_plan(request, request.full_protocol.seeds[:1])
    device = resolve_device(request.device)
    keep_freed_memory()
    with existing_objects_spared(), requested(request.reporter) as reporter:
        return profile_cells(plan, device, request.repeats, reporter)


def prepare(request: RunRequest, download: bool = True) -> PreparedRun:
    """Check a request and expand it into cells, before anything is written.

    Args:
        request: request to check.
        download: True to download missing datasets, False to skip them.

    Raises:
        BenchError: if the request contains a mistake.
    """
    return _prepared(request, lambda: make_plan(request, request.seeds, download))


def prepare_score(request: ScoreRequest) -> PreparedRun:
    """Check a request to score, before anything is written.

    Args:
        request: request to check.

    Raises:
        BenchError: if the request contains a mistake.
    """
    if request.model is None:
        return _prepared(request.base, lambda: make_images_plan(request))
    prepared = _prepared(request.base, lambda: make_weights_plan(request))
    check_weights(prepared.plan)
    return prepared


def _prepared(request: RunRequest, plan_cells: Callable[[], Plan]) -> PreparedRun:
    protocol = request.full_protocol
    cluster = _cluster(request)
    if cluster is None:
        resolve_device(request.device)
    interval = Interval.parse(request.checkpoint_every)
    seconds = _seconds(request.time_limit)
    if request.jobs is not None:
        _check_count("Jobs", request.jobs)
    directory = RunDirectory(
        DEFAULT_OUT / safe_name(protocol.name) if request.out is None else Path(request.out)
    )
    metrics = {name: load_metric(name) for name in registry.metrics.names()}
    chosen = chosen_metrics(request.metric_names, request.skipped_names, list(metrics))
    plan = plan_cells()
    scaled = {name: metric for name, metric in metrics.items() if metric.has_scale}
    context = RunContext(
        directory=directory,
        metrics={MODEL: metrics, EXTRACTOR: EXTRACTOR_METRICS, DATASET: scaled},
        asked=chosen | EXTRACTOR_METRICS.keys(),
        run_id=uuid.uuid4().hex,
        resources=_resources(request),
        interval=interval,
        tracking=_tracking(request, directory),
    )
    asked = _asked(request, plan, chosen)
    plan = plan.with_extractors(lambda cell: trained_extractors(_computed(cell, metrics, chosen)))
    if scaled.keys() & chosen:
        plan = plan.with_scale(trained_extractors(scaled.values()).values())
    if request.retry is not None:
        plan = _failed(plan, directory, request.retry)
    return PreparedRun(request, plan, context, cluster, asked=asked, seconds=seconds)


def execute(prepared: PreparedRun, reporter: Reporter) -> pd.DataFrame:
    """Do what is missing of a prepared run, and return the rows of its cells.

    Args:
        prepared: result of :func:`prepare`.
        reporter: receiver of the progress.
    """
    keep_freed_memory()
    context, plan = prepared.context, prepared.plan
    context.directory.begin(
        {
            "run_id": context.run_id,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "asked": prepared.asked,
            "datasets": [asdict(info) for info in plan.infos],
            "cells": [cell.key for cell in plan.cells],
            "environment": environment(),
            METRICS: record({**context.metrics[MODEL], **context.metrics[EXTRACTOR]}),
        }
    )
    try:
        with terminable(), time_limit(prepared.seconds), existing_objects_spared():
            keep_trained_weights(plan, context)
            _run_cells(prepared, reporter)
    except TimeLimitReached:
        context.directory.collect()
        raise
    rows = context.directory.collect()
    order = {cell.key: place for place, cell in enumerate(plan.cells)}
    rows = rows[rows["cell_key"].isin(order)]
    return rows.sort_values(
        "cell_key", key=lambda keys: keys.map(order), kind="stable", ignore_index=True
    )


def _computed(
    cell: Cell, metrics: Mapping[str, type[Metric]], chosen: frozenset[str]
) -> list[type[Metric]]:
    """Return the metrics that a cell computes: chosen ones, and to select or compare epochs."""
    selection = cell.resolved.epoch_selection if cell.trains else "last"
    by_metric = selection == "best_per_metric"
    compared = {name for each in chosen for name in metrics[each].selections_of}
    names = chosen if selection == "last" else chosen | compared
    return [
        metric
        for name, metric in metrics.items()
        if name in names or (by_metric and metric.selects_epochs)
    ]


def _asked(request: RunRequest, plan: Plan, chosen: frozenset[str]) -> dict[str, Any]:
    """Return the request as ``run.json`` records it."""
    return {
        "models": list(request.model_names) or sorted({cell.model for cell in plan.cells}),
        "backends": list(request.backend_names),
        "datasets": list(request.dataset_names),
        "protocol": request.full_protocol.name,
        "seeds": sorted({cell.seed for cell in plan.cells}),
        "device": request.device,
        **({"range": list(request.value_range)} if request.value_range else {}),
        **({"metrics": sorted(chosen)} if len(chosen) < len(registry.metrics.names()) else {}),
    }


def _run_cells(prepared: PreparedRun, reporter: Reporter) -> None:
    plan, context, request = prepared.plan, prepared.context, prepared.request
    if prepared.cluster is not None:
        run_on_cluster(plan, context, request.device, reporter, prepared.cluster)
        return
    devices = resolve_devices(request.device)
    jobs = default_jobs(plan, context, devices) if request.jobs is None else request.jobs
    if jobs == 1:
        run_serially(plan, context, resolve_device(request.device), reporter)
    else:
        run_in_processes(plan, context, devices, reporter, jobs)


def _tracking(request: RunRequest, directory: RunDirectory) -> Tracking:
    """Return the trackers of a request.

    Raises:
        BenchError: if a tracker is unknown, or lacks a package.
    """
    for name in request.tracker_names:
        tracker: type[Tracker] = registry.trackers.load(name)
        reason = tracker.missing()
        if reason is not None:
            raise BenchError(f"The tracker {name!r} cannot be used: {reason}.")
    return Tracking(directory.path, request.tracker_names)


def _resources(request: RunRequest) -> Resources:
    trained, statistics = references(request.references)
    return Resources(
        data_root=request.data_folder,
        weights=_weights(request.weights),
        cache=cache_folder(),
        trained=trained,
        statistics=statistics,
    )


def _cluster(request: RunRequest) -> Cluster | None:
    if request.executor not in EXECUTORS:
        raise BenchError(f"Executor {request.executor!r}: expected {' or '.join(EXECUTORS)}.")
    cluster = Cluster(request.address, request.cpus_per_cell, request.gpus_per_cell)
    if request.executor == LOCAL:
        if cluster != Cluster():
            raise BenchError("An address, CPUs and GPUs per cell are for the executor ray.")
        return None
    if request.jobs not in {1, None}:
        raise BenchError("Jobs are for the executor local: ray runs as many cells as fit.")
    if cluster.cpus is not None:
        _check_count("CPUs per cell", cluster.cpus)
    if cluster.gpus is not None and not cluster.gpus >= 0:
        raise BenchError(f"GPUs per cell: expected a number from 0, got {cluster.gpus!r}.")
    return cluster


def _failed(plan: Plan, directory: RunDirectory, retry: str) -> Plan:
    """Return the plan without the cells that did not fail before."""
    if retry != FAILED:
        raise BenchError(f"Retry {retry!r}: expected {FAILED!r}.")
    return replace(plan, cells=tuple(c for c in plan.cells if directory.cell(c).failed()))


def _check_count(name: str, number: int) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise BenchError(f"{name}: expected a whole number from 1, got {number!r}.")


def _seconds(limit: str | None) -> float | None:
    seconds = None if limit is None else duration_seconds(limit)
    if limit is not None and seconds is None:
        raise BenchError(f"Time limit {limit!r}: expected for example 30s, 50min or 1.5h.")
    return seconds


def _weights(given: Iterable[str]) -> dict[str, Path]:
    """Return weight files by name, each with a name that an extractor declares."""
    files = weight_files(given)
    if files:
        known = {
            file.name
            for name in registry.extractors.names()
            if registry.extractors.error(name) is None
            for file in registry.extractors.load(name).weight_files
        }
        for name in files:
            if name not in known:
                raise UnknownNameError("weights", name, known)
    return files
