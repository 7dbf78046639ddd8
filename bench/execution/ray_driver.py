"""Cells on a Ray cluster, whose nodes need not share a file system.

What a cell writes on its node is sent to this process, which keeps the run directory; so a
checkpoint outlives its node, and the cell goes on elsewhere.
"""

import contextlib
import os
import socket
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.errors import BenchError, one_line
from bench.execution.cell_log import LOG_FILE
from bench.execution.ray_worker import Files, Parcel, put, run_parcel
from bench.execution.run_context import ALREADY_DONE, Work
from bench.execution.serial import SECONDS_BETWEEN_TRIES
from bench.execution.table import Table
from bench.plan import Cell, ExtractorCell, Plan
from bench.system.checksums import writing
from bench.system.devices import resolve_device
from bench.system.progress import Reporter, WorkReporter
from bench.system.signals import Interrupted, postponed

TRIES = 4
QUEUE_SIZE = 1000
SECONDS_TO_LISTEN = 0.1
SECONDS_TO_SAVE = 120.0
SECONDS_TO_ANSWER = 10.0


@dataclass(frozen=True)
class Cluster:
    """A cluster and the share of it that a cell takes.

    Attributes:
        address: address of a running cluster, as ``ray.init`` takes it; None to start one here.
        cpus: CPUs per cell, which are its threads too.
        gpus: GPUs per cell; a fraction lets cells share one. None for one if the cluster has any.
    """

    address: str | None = None
    cpus: int = 1
    gpus: float | None = None


def run_on_cluster(
    plan: Plan, work: Work, device: str, reporter: Reporter, cluster: Cluster
) -> None:
    """Run what is missing of a plan's cells on a Ray cluster.

    Args:
        plan: cells and datasets.
        work: what all cells of the run share.
        device: requested device.
        reporter: receiver of the progress.
        cluster: cluster, and what a cell takes of it.

    Raises:
        BenchError: Ray is not installed, no cluster answers, or no node has what a cell takes.
        OutputError: the run directory cannot be written.
        Interrupted: the run received a signal; the cells sent checkpoints first.
    """
    with _connected(cluster) as ray:
        _Driver(ray, plan, work, device, reporter, cluster.cpus, _gpus(ray, cluster)).run()


@contextmanager
def _connected(cluster: Cluster) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise BenchError(
            "Ray is not installed: pip install 'spikegen-bench[cluster]', or leave out "
            "--executor ray."
        ) from error
    _check_address(cluster.address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster.address is None:
        quiet["include_dashboard"] = False
    try:
        ray.init(address=cluster.address or "local", **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_answer(cluster.address, error) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Knock before Ray does, which waits for minutes."""
    host, separator, port = (address or "").rpartition(":")
    if separator and port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()
        except OSError as error:
            raise _no_answer(address, error) from error


def _no_answer(address: str | None, error: Exception) -> BenchError:
    return BenchError(f"No Ray cluster answers at {address!r}: {one_line(error)}")


def _gpus(ray: Any, cluster: Cluster) -> float:
    """Return the number of GPUs per cell.

    Raises:
        BenchError: no node has what a cell takes.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = cluster.gpus
    if gpus is None:
        gpus = float(any(node.get("GPU") for node in nodes))
    if not any(node.get("CPU", 0) >= cluster.cpus and node.get("GPU", 0) >= gpus for node in nodes):
        found = "; ".join(f"{n.get('CPU', 0):g} CPUs and {n.get('GPU', 0):g} GPUs" for n in nodes)
        raise BenchError(
            f"A cell takes {cluster.cpus} CPUs and {gpus:g} GPUs, and no node of the cluster has "
            f"them: there are {found}."
        )
    return gpus


@dataclass(eq=False)
class _Attempt:
    """One attempt at a cell.

    Attributes:
        index: position of the cell in the plan, from 1.
        held: lock on the cell.
        tries: number of attempts, including this one.
        reporter: receiver of the progress; None before the cell starts.
        name: name that identifies the attempt in messages.
        over: True once the last message has arrived.
        saved: place of a checkpoint, in words.
    """

    index: int
    cell: Cell
    held: ExitStack
    tries: int = 1
    reporter: WorkReporter | None = None
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = field(default_factory=time.perf_counter)
    over: bool = False
    saved: str = ""


class _Driver:
    def __init__(
        self,
        ray: Any,
        plan: Plan,
        work: Work,
        device: str,
        reporter: Reporter,
        cpus: int,
        gpus: float,
    ) -> None:
        self._ray, self._plan, self._work = ray, plan, work
        self._device, self._reporter = device, reporter
        self._cpus, self._gpus = cpus, gpus
        self._messages = _queue(ray)
        self._remote = ray.remote(run_parcel).options(
            num_cpus=cpus,
            num_gpus=gpus,
            max_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(cpus)}},
        )
        self._left: deque[tuple[int, Cell]] = deque(enumerate(plan.cells, 1))
        self._extracting = Counter(c.dataset for c in plan.cells if isinstance(c, ExtractorCell))
        self._cached: dict[str, dict[str, bytes]] = {}
        self._attempts: dict[Any, _Attempt] = {}
        self._table = Table(work.directory)

    def run(self) -> None:
        """Keep the cluster busy until all cells have ended.

        Raises:
            Interrupted: the run received a signal; the cells sent checkpoints first.
        """
        try:
            with postponed() as stop:
                while self._left or self._attempts:
                    if stop.number is not None:
                        raise Interrupted(stop.number)
                    self._submit()
                    self._listen(SECONDS_TO_LISTEN)
                    self._see_what_ended()
        except Interrupted as error:
            raise Interrupted(error.number, self._interrupt()) from error
        finally:
            for attempt in self._attempts.values():
                attempt.held.close()

    def _submit(self) -> None:
        """Hand over as many cells as the cluster runs at once, and as many to come next."""
        slots, passed_over = 2 * self._slots(), 0
        while len(self._attempts) < slots and passed_over < len(self._left):
            index, cell = self._left.popleft()
            if not self._starts(index, cell):
                self._left.append((index, cell))
                passed_over += 1
        if self._left and not self._attempts:
            self._reporter.waiting(len(self._left))
            time.sleep(SECONDS_BETWEEN_TRIES)

    def _slots(self) -> int:
        resources = self._ray.cluster_resources()
        slots = resources.get("CPU", 0) // self._cpus
        if self._gpus:
            slots = min(slots, resources.get("GPU", 0) // self._gpus)
        return max(1, int(slots))

    def _starts(self, index: int, cell: Cell) -> bool:
        """Hand a cell over, or find it done; False if it must wait, for others or for another run.

        What judges models is trained before them, once, and sent along.
        """
        if self._extracting[cell.dataset] and not isinstance(cell, ExtractorCell):
            return False
        with ExitStack() as stack:
            if not stack.enter_context(self._work.directory.claimed(cell.key)):
                return False
            if self._work.settled(cell, resolve_device("cpu")):
                reporter = self._reporter.started(index, len(self._plan.cells), cell.title)
                reporter.ended(ALREADY_DONE, 0.0)
                self._extracted(cell)
            else:
                self._hand_over(_Attempt(index, cell, stack.pop_all()))
            return True

    def _hand_over(self, attempt: _Attempt) -> None:
        cell = attempt.cell
        folder = self._work.directory.cell(cell)
        parcel = Parcel(
            cell,
            self._plan.datasets.get(cell.dataset),
            self._work,
            self._device,
            {name: folder.read(name) for name in folder.sums() if folder.exists(name)},
            self._cached.get(cell.dataset, {}),
        )
        reference = self._remote.remote(parcel, self._messages, attempt.name)
        self._attempts[reference] = attempt

    def _listen(self, seconds: float) -> None:
        """Take in what has come, waiting for the first message; what comes too late is dropped."""
        from ray.util.queue import Empty

        by_name = {attempt.name: attempt for attempt in self._attempts.values()}
        with contextlib.suppress(Empty):
            first = self._messages.get(timeout=seconds)
            others = self._messages.get_nowait_batch(self._messages.qsize())
            for name, *message in (first, *others):
                if name in by_name:
                    self._hear(by_name[name], *message)

    def _hear(self, attempt: _Attempt, kind: str, *content: Any) -> None:
        folder = self._work.directory.cell(attempt.cell)
        match kind:
            case "started" if attempt.reporter is None:
                attempt.reporter = self._reporter.started(
                    attempt.index, len(self._plan.cells), attempt.cell.title
                )
            case "trained_batch" | "evaluated" | "ended":
                getattr(attempt.reporter, kind)(*content)
            case "written":
                name, written = content
                with folder.write(name) as file:
                    file.write(written)
            case "removed":
                folder.remove(*content)
            case "log":
                with writing(folder.path / LOG_FILE):
                    folder.path.mkdir(parents=True, exist_ok=True)
                    with (folder.path / LOG_FILE).open("a", encoding="utf-8") as log:
                        log.write(*content)
            case "cached":
                self._keep(attempt.cell, *content)
            case "saved":
                (attempt.saved,) = content
            case "over":
                attempt.over = True

    def _keep(self, cell: Cell, files: Files) -> None:
        self._cached.setdefault(cell.dataset, {}).update(files)
        with contextlib.suppress(OSError):
            put(self._work.resources.cache, files)

    def _see_what_ended(self) -> None:
        if not self._attempts:
            return
        waiting = list(self._attempts)
        ended, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        for reference in ended:
            attempt = self._attempts[reference]
            try:
                self._ray.get(reference)
            except self._ray.exceptions.RayError as error:
                del self._attempts[reference]
                self._lost(attempt, error)
                continue
            while not attempt.over:
                self._listen(SECONDS_TO_LISTEN)
            del self._attempts[reference]
            self._close(attempt)

    def _lost(self, attempt: _Attempt, error: Exception) -> None:
        """Go on elsewhere, from what has come; if that was tried often enough, the cell fails."""
        if attempt.tries < TRIES:
            tries = attempt.tries + 1
            self._hand_over(
                _Attempt(attempt.index, attempt.cell, attempt.held, tries, attempt.reporter)
            )
            return
        cause = getattr(error, "cause", None) or error
        reason = f"lost {attempt.tries} times, at last by {one_line(cause)}"
        attempt.held.close()
        self._work.fail(attempt.cell, resolve_device("cpu"), reason)
        if attempt.reporter:
            seconds = time.perf_counter() - attempt.started
            attempt.reporter.ended(f"failed: {reason}", seconds)
        self._close(attempt)

    def _close(self, attempt: _Attempt) -> None:
        attempt.held.close()
        self._extracted(attempt.cell)
        self._table.update()

    def _extracted(self, cell: Cell) -> None:
        if isinstance(cell, ExtractorCell):
            self._extracting[cell.dataset] -= 1

    def _interrupt(self) -> str:
        """Have the cells save and end; returns what they saved, in words."""
        for reference in self._attempts:
            self._ray.cancel(reference, force=False)
        deadline = time.monotonic() + SECONDS_TO_SAVE
        waiting = list(self._attempts)
        while waiting and time.monotonic() < deadline:
            self._listen(SECONDS_TO_LISTEN)
            _, waiting = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        self._listen(SECONDS_TO_LISTEN)
        return "; ".join(f"{a.cell.title}: {a.saved}" for a in self._attempts.values() if a.saved)


def _queue(ray: Any) -> Any:
    """Return the queue of messages on this node, since other nodes can be lost."""
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(QUEUE_SIZE, {"num_cpus": 0, "scheduling_strategy": here})
