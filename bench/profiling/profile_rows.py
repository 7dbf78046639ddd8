"""Profiles of cells as a tidy table with one number per row."""

import time
from collections.abc import Iterator
from operator import itemgetter
from statistics import median

import pandas as pd
import torch

from bench.datasets.batches import batch_count, to_unit_range
from bench.datasets.preprocessing import draw
from bench.errors import SkippedError, one_line
from bench.evaluation.class_labels import labels_for
from bench.execution.build import build_model, neuron_implementation
from bench.execution.run_cell import summarise_status
from bench.execution.run_context import DataCache
from bench.plan.cells import Cell
from bench.plan.run_plan import Plan
from bench.profiling.profiler import ACTIVITIES, Measured, Profiler
from bench.recording.layer_timing import Place
from bench.store.run_directory import Row
from bench.store.schema import FAILED, NOT_APPLICABLE, OK, SKIPPED, Status
from bench.system.devices import NO_PEAK_MEMORY, describe_device, fastest_convolutions, tf32
from bench.system.progress import Reporter
from bench.system.threads import cpu_threads
from bench.testing.neuron_verdict import model_verdict

COLUMNS = (
    "model", "backend", "dataset", "device", "batch_size", "activity", "layer", "phase", "quantity",
    "value", "low", "high", "unit", "status", "reason", "neuron_verdict",
)  # fmt: skip
WHOLE = Place("", "")
IMAGES_PER_SECOND, PEAK_MEMORY, SECONDS = "images_per_second", "peak_memory", "seconds"
UNITS = {IMAGES_PER_SECOND: "images/s", PEAK_MEMORY: "bytes", SECONDS: "s"}


def profile_cells(
    plan: Plan, device: torch.device, repeats: int, reporter: Reporter
) -> pd.DataFrame:
    """Profile the cells of a plan, one after the other.

    Args:
        plan: cells and datasets.
        device: device of the models.
        repeats: number of timed calls per activity, at least 1.
        reporter: receiver of the progress.

    Returns:
        Rows with the columns ``COLUMNS``; :func:`bench.profile` describes them.
    """
    data = DataCache(plan.datasets)
    rows: list[Row] = []
    for index, cell in enumerate(plan.cells, 1):
        work = reporter.started(index, len(plan.cells), cell.title)
        started = time.perf_counter()
        named = {
            "model": cell.model,
            "backend": cell.backend,
            "dataset": cell.dataset,
            "device": describe_device(device),
            "batch_size": cell.resolved.batch_size,
        }
        protocol = cell.resolved
        tensor_cores = tf32(protocol.precision == "tf32")
        with tensor_cores, fastest_convolutions(), cpu_threads(protocol.threads):
            measured = [{**named, **row} for row in _cell_rows(cell, data, device, repeats)]
        outcome = summarise_status(pd.DataFrame(measured, columns=COLUMNS))
        work.ended(outcome, time.perf_counter() - started)
        rows += measured
    return pd.DataFrame(rows, columns=COLUMNS)


def _cell_rows(cell: Cell, data: DataCache, device: torch.device, repeats: int) -> Iterator[Row]:
    """Yield the rows of a cell. A failure becomes rows with its reason."""
    try:
        if cell.skipped:
            raise SkippedError(cell.skipped)
        profiler = _profiler(cell, data, device, repeats)
        verdict = model_verdict(profiler.model)
    except Exception as error:
        for activity in ACTIVITIES:
            yield from _failed_rows(activity, error)
        return
    for row in _profiled_rows(profiler):
        yield {**row, "neuron_verdict": verdict}


def _profiled_rows(profiler: Profiler) -> Iterator[Row]:
    for activity in ACTIVITIES:
        lacks = profiler.lacks(activity)
        if lacks:
            yield from _without_number(activity, NOT_APPLICABLE, lacks)
            continue
        try:
            measured = profiler.measure(activity)
        except Exception as error:
            yield from _failed_rows(activity, error)
        else:
            yield from _measured_rows(activity, measured)


def _profiler(cell: Cell, data: DataCache, device: torch.device, repeats: int) -> Profiler:
    size = cell.resolved.batch_size
    train = data.load(cell).train
    drawn = draw(len(train), size)
    batch = to_unit_range(torch.from_numpy(train.images[drawn]).to(device))
    known = None if train.labels is None else torch.from_numpy(train.labels[drawn])
    neuron_implementation(cell, device)  # Raises if the backend cannot run on the device.
    model = build_model(cell, tuple(batch.shape[1:]), device)
    labels = labels_for(model, known).values
    return Profiler(
        model=model,
        images=batch,
        batches=batch_count(len(train), size),
        seed=cell.seed,
        repeats=repeats,
        labels=labels,
    )


def _measured_rows(activity: str, measured: Measured) -> Iterator[Row]:
    rates = [measured.images / seconds for seconds in measured.seconds]
    yield _row(
        activity, WHOLE, IMAGES_PER_SECOND, measured.images / median(measured.seconds), rates
    )
    if measured.peak_memory is None:
        yield _missing(activity, PEAK_MEMORY, NOT_APPLICABLE, NO_PEAK_MEMORY)
    else:
        yield _row(activity, WHOLE, PEAK_MEMORY, measured.peak_memory)
    if not measured.layers:
        return
    calls = [{WHOLE: sum(call.values()), **call} for call in measured.layers]
    # The times of a single call add up; the fastest call is the least disturbed one.
    fastest = min(calls, key=itemgetter(WHOLE))
    for place, seconds in fastest.items():
        spread = [call.get(place, 0.0) for call in calls]
        yield _row(activity, place, SECONDS, seconds, spread)


def _row(
    activity: str, place: Place, quantity: str, value: float, spread: list[float] | None = None
) -> Row:
    return {
        "activity": activity,
        "layer": place.layer,
        "phase": place.phase,
        "quantity": quantity,
        "value": value,
        "low": min(spread) if spread else None,
        "high": max(spread) if spread else None,
        "unit": UNITS[quantity],
        "status": OK,
        "reason": None,
    }


def _failed_rows(activity: str, error: Exception) -> Iterator[Row]:
    if isinstance(error, SkippedError):
        yield from _without_number(activity, SKIPPED, str(error))
    else:
        yield from _without_number(activity, FAILED, one_line(error))


def _without_number(activity: str, status: Status, reason: str) -> Iterator[Row]:
    for quantity in (IMAGES_PER_SECOND, PEAK_MEMORY):
        yield _missing(activity, quantity, status, reason)


def _missing(activity: str, quantity: str, status: Status, reason: str) -> Row:
    row = _row(activity, WHOLE, quantity, float("nan"))
    return {**row, "status": status, "reason": reason}
