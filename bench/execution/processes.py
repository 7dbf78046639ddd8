"""Cells in worker processes of this machine."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from bench.errors import BenchError, OutputError
from bench.execution.remote_progress import MessageReporter
from bench.execution.run_context import DataCache, Work
from bench.execution.serial import SECONDS_BETWEEN_TRIES
from bench.execution.table import Table
from bench.plan import Cell, Plan
from bench.system.garbage import existing_objects_spared
from bench.system.memory import keep_freed_memory
from bench.system.progress import Reporter, WorkReporter
from bench.system.signals import Interrupted, postponed, terminable

SECONDS_TO_SAVE = 120.0
THREADS_VARIABLE = "OMP_NUM_THREADS"


def run_in_processes(
    plan: Plan, work: Work, devices: Sequence[torch.device], reporter: Reporter, jobs: int
) -> None:
    """Run what is missing of a plan's cells, ``jobs`` at a time.

    The threads of this process are divided among the workers, and the devices in turn. If a worker
    dies, its cell fails and another worker takes its place.

    Args:
        plan: cells and datasets.
        work: what all cells of the run share.
        devices: devices to use in turn.
        reporter: receiver of the progress.
        jobs: number of worker processes.

    Raises:
        OutputError: the run directory cannot be written.
        Interrupted: the run received a signal; the workers wrote checkpoints first.
    """
    crew = _Crew(plan, work, devices, reporter, jobs)
    try:
        crew.run()
    except Interrupted as error:
        raise Interrupted(error.number, crew.interrupt()) from error
    except BaseException:
        crew.interrupt()
        raise
    finally:
        crew.dismiss()


@dataclass
class _Task:
    index: int
    cell: Cell
    reporter: WorkReporter
    started: float


class _Worker:
    """A process that runs one cell after the other, and the last message sent to it."""

    def __init__(self, plan: Plan, work: Work, device: torch.device, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.device = device
        self.task: _Task | None = None
        self.connection, other = context.Pipe()
        arguments = (other, plan, work, device, threads)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        with _threads_of_children(threads):
            self.process.start()
        other.close()

    def stopped(self) -> str:
        """Return how the process ended, in words."""
        self.process.join()
        code = self.process.exitcode
        if code is not None and code < 0:
            killed = signal.Signals(-code).name
            return f"the worker process was killed by {killed}{_OUT_OF_MEMORY.get(killed, '')}"
        return f"the worker process ended with exit code {code}"


_OUT_OF_MEMORY = {"SIGKILL": ", as the system does when memory runs out"}


class _Crew:
    def __init__(
        self,
        plan: Plan,
        work: Work,
        devices: Sequence[torch.device],
        reporter: Reporter,
        jobs: int,
    ) -> None:
        self._plan, self._work, self._reporter = plan, work, reporter
        self._threads = max(1, torch.get_num_threads() // jobs)
        self._queue: deque[tuple[int, Cell]] = deque(enumerate(plan.cells, 1))
        self._table = Table(work.directory)
        self._refused = 0
        count = min(jobs, len(plan.cells))
        self._workers = [self._hire(devices[slot % len(devices)]) for slot in range(count)]

    def run(self) -> None:
        """Keep the workers busy until all cells have ended.

        Raises:
            Interrupted: the run received a signal.
        """
        # An interrupt could cut a message in two.
        with postponed() as stop:
            while self._queue or any(worker.task for worker in self._workers):
                if stop.number is not None:
                    raise Interrupted(stop.number)
                self._give_out()
                busy = {worker.connection: worker for worker in self._workers if worker.task}
                heard = wait(list(busy), SECONDS_BETWEEN_TRIES)
                for connection in heard:
                    self._hear(busy[connection])  # type: ignore[index]
                if not heard:
                    self._refused = 0

    def interrupt(self) -> str:
        """Have the workers save and end; returns what they saved, in words."""
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

    def dismiss(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.connection.close()
            if worker.task is not None:
                worker.process.kill()
            worker.process.join()

    def _hire(self, device: torch.device) -> _Worker:
        return _Worker(self._plan, self._work, device, self._threads)

    def _give_out(self) -> None:
        """Give each free worker a cell, but none that another run has a second time at once."""
        for worker in self._workers:
            if worker.task is None and self._refused < len(self._queue):
                self._give(worker, *self._queue.popleft())
        if self._queue and not any(worker.task for worker in self._workers):
            self._reporter.waiting(len(self._queue))

    def _give(self, worker: _Worker, index: int, cell: Cell) -> None:
        try:
            worker.connection.send(index - 1)
        except OSError:
            # It died with nothing to do.
            self._queue.appendleft((index, cell))
            self._replace(worker)
        else:
            worker.task = _Task(index, cell, WorkReporter(), time.perf_counter())

    def _hear(self, worker: _Worker) -> None:
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
            case "trained_batch" | "evaluated" | "ended":
                getattr(task.reporter, kind)(*content)
            case "free":
                self._free(worker, task, had=content[0])
            case "output_error":
                raise OutputError(content[0])
            case "interrupted":
                raise Interrupted(content[1], f"{task.cell.title}: {content[0]}")
            case "crashed":
                raise RuntimeError(f"a worker process failed:\n{content[0]}")

    def _free(self, worker: _Worker, task: _Task, had: bool) -> None:
        worker.task = None
        if had:
            self._refused = 0
            self._table.update()
        else:
            self._refused += 1
            self._queue.append((task.index, task.cell))

    def _lost(self, worker: _Worker, task: _Task) -> None:
        reason = worker.stopped()
        self._work.fail(task.cell, worker.device, reason)
        task.reporter.ended(f"failed: {reason}", time.perf_counter() - task.started)
        self._table.update()
        self._replace(worker)

    def _replace(self, worker: _Worker) -> None:
        self._workers[self._workers.index(worker)] = self._hire(worker.device)


@contextmanager
def _threads_of_children(threads: int) -> Iterator[None]:
    """Have processes that start now use so many threads, in all their libraries."""
    before = os.environ.get(THREADS_VARIABLE)
    os.environ[THREADS_VARIABLE] = str(threads)
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS_VARIABLE]
        else:
            os.environ[THREADS_VARIABLE] = before


def _serve(
    connection: Connection, plan: Plan, work: Work, device: torch.device, threads: int
) -> None:
    """Run the cells whose places in the plan come through the connection, until it is closed."""
    # Ctrl-C reaches the whole group of processes; the one that started this one passes it on.
    if hasattr(os, "setsid"):
        os.setsid()
    torch.set_num_threads(threads)
    keep_freed_memory()
    data = DataCache(plan.datasets)
    try:
        with terminable(), existing_objects_spared():
            while True:
                cell = plan.cells[connection.recv()]
                had = work.run(cell, device, data.load, partial(_reporter, connection))
                connection.send(("free", had))
    except (EOFError, BrokenPipeError):
        return
    except KeyboardInterrupt as error:
        stop = error if isinstance(error, Interrupted) else Interrupted()
        _tell(connection, "interrupted", stop.saved, stop.number)
    except OutputError as error:
        _tell(connection, "output_error", str(error))
    except BenchError as error:
        _tell(connection, "crashed", str(error))
    except Exception:
        _tell(connection, "crashed", traceback.format_exc())
    sys.exit(1)


def _tell(connection: Connection, *message: Any) -> None:
    with contextlib.suppress(OSError):
        connection.send(message)


def _reporter(connection: Connection) -> WorkReporter:
    """Return a reporter to the parent process; it stops this process if the parent is gone."""

    def send(*message: Any) -> None:
        try:
            connection.send(message)
        except OSError:
            signal.raise_signal(signal.SIGTERM)

    send("started")
    return MessageReporter(send)
