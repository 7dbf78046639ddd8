"""Run cells in worker processes of this machine."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from bench.errors import BenchError, OutputError
from bench.execution.remote_progress import MessageReporter
from bench.execution.run_cell import fail, is_done, run_cell
from bench.execution.run_context import DataCache, GrowingTable, RunContext
from bench.execution.serial import SECONDS_BETWEEN_TRIES
from bench.plan.cells import Cell
from bench.plan.run_plan import Plan
from bench.store.schema import MODEL
from bench.system.memory import existing_objects_spared, keep_freed_memory
from bench.system.progress import Reporter, WorkReporter
from bench.system.signals import Interrupted, postponed, terminable
from bench.system.threads import cells_at_a_time, started_with_threads
from bench.system.variables import environment_variables

SECONDS_TO_SAVE = 120.0


def run_in_processes(
    plan: Plan, context: RunContext, devices: Sequence[torch.device], reporter: Reporter, jobs: int
) -> None:
    """Run what is missing of a plan's cells, ``jobs`` at a time.

    Of the models on a dataset, those that train on most images begin, so that no worker is left
    alone with a long cell in the end. The workers get the devices in turn. If a worker dies, its
    cell fails, and a new worker replaces it.

    Args:
        plan: cells and datasets.
        context: context of the run.
        devices: devices of the models, at least one.
        reporter: receiver of the progress.
        jobs: number of workers, at least 1.

    Raises:
        OutputError: if the run directory cannot be written.
        Interrupted: if a signal stops the run, after the workers saved checkpoints.
    """
    plan = replace(plan, cells=_longest_first(plan.cells))
    pool = _WorkerPool(plan, context, devices, reporter, jobs)
    try:
        pool.run()
    except Interrupted as error:
        raise Interrupted(error.signum, pool.interrupt()) from error
    except BaseException:
        pool.interrupt()
        raise
    finally:
        pool.stop()


def _longest_first(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Sort the models of each dataset by the images that they train on; others keep their place."""
    ordered: list[Cell] = []
    for _, group in groupby(cells, key=lambda cell: (cell.kind, cell.dataset)):
        ordered += sorted(group, key=_trained_images, reverse=True)
    return tuple(ordered)


def _trained_images(cell: Cell) -> int:
    trains = cell.kind == MODEL and not cell.skipped
    return cell.train_size * cell.resolved.epochs if trains else 0


def default_jobs(plan: Plan, context: RunContext, devices: Sequence[torch.device]) -> int:
    """Return how many cells to run at a time: one per GPU, or as many as the CPUs have room for.

    Args:
        plan: cells and datasets.
        context: context of the run; cells that are done in its directory need no process.
        devices: devices of the models, at least one.
    """
    left = [c for c in plan.cells if not c.skipped and not is_done(c, context, devices[0])]
    threads = max((cell.resolved.threads for cell in left), default=1)
    return max(1, min(len(left), cells_at_a_time(devices, threads)))


@dataclass
class _Task:
    """A cell that a worker is working on: its number in the plan, from 1, and its progress."""

    index: int
    cell: Cell
    reporter: WorkReporter
    started: float


class _Worker:
    """A process that runs one cell after the other, and its current task."""

    def __init__(self, plan: Plan, context: RunContext, device: torch.device) -> None:
        processes = _process_context()
        self.device = device
        self.task: _Task | None = None
        self.connection, other = processes.Pipe()
        arguments = (other, plan, context, device)
        self.process = processes.Process(target=_serve, args=arguments, daemon=True)
        # Each cell sets its own number of threads; a process that starts needs one. With a safe
        # path it does not take the current folder's bench/ for the installed suite.
        with started_with_threads(1), environment_variables({"PYTHONSAFEPATH": "1"}):
            self.process.start()
        other.close()

    def ending(self) -> str:
        """Wait for the process to end, and describe how it ended."""
        self.process.join()
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"the worker process was killed by {name}{_OUT_OF_MEMORY.get(name, '')}"
        return f"the worker process ended with exit code {code}"


_OUT_OF_MEMORY = {"SIGKILL": ", as the system does when memory runs out"}


class _WorkerPool:
    """Worker processes, and the cells that are left for them."""

    def __init__(
        self,
        plan: Plan,
        context: RunContext,
        devices: Sequence[torch.device],
        reporter: Reporter,
        jobs: int,
    ) -> None:
        self._plan, self._context, self._reporter = plan, context, reporter
        self._queue: deque[tuple[int, Cell]] = deque(enumerate(plan.cells, 1))
        self._table = GrowingTable(context.directory)
        self._refused = 0
        count = min(jobs, len(plan.cells))
        self._workers = [self._start(devices[slot % len(devices)]) for slot in range(count)]

    def run(self) -> None:
        """Keep the workers busy until all cells have ended.

        Raises:
            Interrupted: if a signal stops the run.
        """
        # An interruption could cut a message in two.
        with postponed() as stop:
            while self._queue or any(worker.task for worker in self._workers):
                if stop.signum is not None:
                    raise Interrupted(stop.signum)
                self._assign_cells()
                busy = {worker.connection: worker for worker in self._workers if worker.task}
                ready = wait(list(busy), SECONDS_BETWEEN_TRIES)
                for connection in ready:
                    self._receive(busy[connection])
                if not ready:
                    self._refused = 0

    def interrupt(self) -> str:
        """Make the workers save checkpoints and end, and return the checkpoints in words."""
        for worker in self._workers:
            worker.process.terminate()
        saved = []
        deadline = time.monotonic() + SECONDS_TO_SAVE
        for worker in self._workers:
            with contextlib.suppress(EOFError, OSError):
                while worker.connection.poll(max(0.0, deadline - time.monotonic())):
                    kind, *content = worker.connection.recv()
                    if kind == "interrupted" and content[0] and worker.task:
                        saved.append(f"{worker.task.cell.title}: {content[0]}")
        return "; ".join(saved)

    def stop(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.connection.close()
            if worker.task is not None:
                worker.process.kill()
            worker.process.join()

    def _start(self, device: torch.device) -> _Worker:
        return _Worker(self._plan, self._context, device)

    def _assign_cells(self) -> None:
        """Give each idle worker a cell, unless other processes are working on all that are left."""
        for worker in self._workers:
            if worker.task is None and self._refused < len(self._queue):
                self._assign(worker, *self._queue.popleft())
        if self._queue and not any(worker.task for worker in self._workers):
            self._reporter.waiting(len(self._queue))

    def _assign(self, worker: _Worker, index: int, cell: Cell) -> None:
        try:
            worker.connection.send(index - 1)
        except OSError:
            # The worker died while it was idle.
            self._queue.appendleft((index, cell))
            self._replace(worker)
        else:
            worker.task = _Task(index, cell, WorkReporter(), time.perf_counter())

    def _receive(self, worker: _Worker) -> None:
        task = worker.task
        assert task is not None
        try:
            kind, *content = worker.connection.recv()
        except (EOFError, OSError):
            self._lost(worker, task)
            return
        match kind:
            case "started":
                task.reporter = self._reporter.started(
                    task.index, len(self._plan.cells), task.cell.title
                )
            case "began_stage" | "trained_batch" | "evaluated" | "warned" | "ended":
                getattr(task.reporter, kind)(*content)
            case "free":
                self._release(worker, task, ended=content[0])
            case "output_error":
                raise OutputError(content[0])
            case "interrupted":
                raise Interrupted(content[1], f"{task.cell.title}: {content[0]}")
            case "crashed":
                raise RuntimeError(f"a worker process failed:\n{content[0]}")

    def _release(self, worker: _Worker, task: _Task, ended: bool) -> None:
        worker.task = None
        if ended:
            self._refused = 0
            self._table.update()
        else:
            self._refused += 1
            self._queue.append((task.index, task.cell))

    def _lost(self, worker: _Worker, task: _Task) -> None:
        reason = worker.ending()
        fail(task.cell, self._context, worker.device, reason)
        task.reporter.ended(f"failed: {reason}", time.perf_counter() - task.started)
        self._table.update()
        self._replace(worker)

    def _replace(self, worker: _Worker) -> None:
        self._workers[self._workers.index(worker)] = self._start(worker.device)


def _process_context() -> Any:
    """Return the context that starts workers.

    Where the system can fork, one server process imports the suite for all workers.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _serve(connection: Connection, plan: Plan, context: RunContext, device: torch.device) -> None:
    """Run the cells whose indices in the plan are received, until the connection is closed."""
    # Ctrl-C reaches the whole process group; the parent process passes it on to this one.
    if hasattr(os, "setsid"):
        os.setsid()
    keep_freed_memory()
    data = DataCache(plan.datasets)
    try:
        with terminable(), existing_objects_spared():
            while True:
                cell = plan.cells[connection.recv()]
                started = partial(_reporter, connection)
                ended = run_cell(cell, context, device, data.load, started)
                connection.send(("free", ended))
    except (EOFError, BrokenPipeError):
        return
    except KeyboardInterrupt as error:
        stop = error if isinstance(error, Interrupted) else Interrupted()
        _send(connection, "interrupted", stop.saved, stop.signum)
    except OutputError as error:
        _send(connection, "output_error", str(error))
    except BenchError as error:
        _send(connection, "crashed", str(error))
    except Exception:
        _send(connection, "crashed", traceback.format_exc())
    sys.exit(1)


def _send(connection: Connection, *message: Any) -> None:
    with contextlib.suppress(OSError):
        connection.send(message)


def _reporter(connection: Connection) -> WorkReporter:
    """Return a reporter that sends to the parent process, and stops this one if that is gone."""

    def send(*message: Any) -> None:
        try:
            connection.send(message)
        except OSError:
            signal.raise_signal(signal.SIGTERM)

    send("started")
    return MessageReporter(send)
