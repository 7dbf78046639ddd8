"""Run cells on a Ray cluster, whose nodes do not need a shared file system.

Every file that a cell writes on its node is sent to this process, which writes the run directory.
So a checkpoint outlives its node, and another node continues the cell.
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
from pathlib import Path
from typing import Any

from bench.errors import BenchError, one_line
from bench.execution.cell_log import LOG_FILE
from bench.execution.ray_worker import Files, RemoteCell, put, run_remotely
from bench.execution.run_cell import ALREADY_DONE, fail, settle
from bench.execution.run_context import GrowingTable, RunContext
from bench.execution.serial import SECONDS_BETWEEN_TRIES
from bench.plan.cells import Cell
from bench.plan.run_plan import Plan
from bench.system.checksums import writing
from bench.system.devices import resolve_device
from bench.system.paths import CACHE_VARIABLE, cache_folder
from bench.system.progress import Reporter, WorkReporter
from bench.system.signals import Interrupted, postponed
from bench.system.variables import environment_variables
from bench.tracking.cell_trackers import CellTrackers
from bench.tracking.tracker import TrackedCell

TRIES = 4
QUEUE_SIZE = 1000
SECONDS_TO_LISTEN = 0.1
SECONDS_TO_SAVE = 120.0
SECONDS_TO_ANSWER = 10.0


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and the resources that each cell gets.

    Attributes:
        address: address of a running cluster, as ``ray.init`` takes it; None to start one on this
            machine.
        cpus: CPUs per cell, at least 1; None for as many as a cell of the run has threads.
        gpus: GPUs per cell, at least 0; with a fraction, cells share a GPU. None for one GPU if the
            cluster has any.
    """

    address: str | None = None
    cpus: int | None = None
    gpus: float | None = None


def run_on_cluster(
    plan: Plan, context: RunContext, device: str, reporter: Reporter, cluster: Cluster
) -> None:
    """Run what is missing of a plan's cells on a Ray cluster.

    Args:
        plan: cells and datasets.
        context: context of the run.
        device: name of the device of the models; each node resolves it.
        reporter: receiver of the progress.
        cluster: cluster, and the resources per cell.

    Raises:
        BenchError: if Ray is not installed, no cluster answers, or no node has a cell's resources.
        OutputError: if the run directory cannot be written.
        Interrupted: if a signal stops the run, after the cells sent checkpoints.
    """
    with _connected(cluster) as ray:
        resources = _cell_resources(ray, plan, cluster)
        _Driver(ray, plan, context, resources, device=device, reporter=reporter).run()


@contextmanager
def _connected(cluster: Cluster) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise BenchError(
            "Ray is not installed: pip install 'spikegen-bench[cluster]', or use bench run, which "
            "needs no cluster."
        ) from error
    _check_address(cluster.address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster.address is None:
        quiet["include_dashboard"] = False
    try:
        with _where_workers_find_the_suite():
            ray.init(address=cluster.address or "local", **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_answer(cluster.address, error) from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _where_workers_find_the_suite() -> Iterator[None]:
    """Change to the folder that contains the suite while Ray reads the current folder.

    Workers import from that folder first, and a folder ``bench`` in the user's is not the suite.
    They also start in it, so a relative cache folder is made absolute.
    """
    absolute = {CACHE_VARIABLE: str(cache_folder().absolute())}
    with environment_variables(absolute), contextlib.chdir(Path(__file__).parents[2]):
        yield


def _check_address(address: str | None) -> None:
    """Try to connect, since Ray waits for minutes before it gives up."""
    host, separator, port = (address or "").rpartition(":")
    if separator and port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host, int(port)), SECONDS_TO_ANSWER).close()
        except OSError as error:
            raise _no_answer(address, error) from error


def _no_answer(address: str | None, error: Exception) -> BenchError:
    return BenchError(f"No Ray cluster answers at {address!r}: {one_line(error)}")


@dataclass(frozen=True)
class _Resources:
    """The CPUs and the GPUs that each cell gets."""

    cpus: int
    gpus: float


def _cell_resources(ray: Any, plan: Plan, cluster: Cluster) -> _Resources:
    """Return the resources per cell.

    Raises:
        BenchError: if no node has the resources of a cell.
    """
    cpus = cluster.cpus or max((cell.resolved.threads for cell in plan.cells), default=1)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = cluster.gpus
    if gpus is None:
        gpus = float(any(node.get("GPU") for node in nodes))
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        have = "; ".join(f"{n.get('CPU', 0):g} CPUs and {n.get('GPU', 0):g} GPUs" for n in nodes)
        raise BenchError(
            f"A cell takes {cpus} CPUs and {gpus:g} GPUs, and no node of the cluster has "
            f"them. The nodes have {have}."
        )
    return _Resources(cpus, gpus)


@dataclass(eq=False)
class _Attempt:
    """One attempt to run a cell.

    Attributes:
        index: number of the cell in the plan, from 1.
        cell: the cell.
        held: lock on the cell.
        tries: number of attempts, including this one.
        reporter: receiver of the progress; None before the cell begins.
        trackers: trackers of the cell; None before the first is called.
        name: name that the attempt's messages begin with.
        started: time when the attempt was handed over.
        over: True once the last message has arrived.
        saved: the checkpoint in words; empty if there is none.
    """

    index: int
    cell: Cell
    held: ExitStack
    tries: int = 1
    reporter: WorkReporter | None = None
    trackers: CellTrackers | None = None
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = field(default_factory=time.perf_counter)
    over: bool = False
    saved: str = ""


class _Driver:
    """The cells that are left, the attempts in progress, and the messages from their nodes."""

    def __init__(
        self,
        ray: Any,
        plan: Plan,
        context: RunContext,
        resources: _Resources,
        *,
        device: str,
        reporter: Reporter,
    ) -> None:
        self._ray, self._plan, self._context, self._resources = ray, plan, context, resources
        self._device, self._reporter = device, reporter
        self._messages = _queue(ray)
        self._remote = ray.remote(run_remotely).options(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_retries=0,
            scheduling_strategy="SPREAD",
        )
        self._left: deque[tuple[int, Cell]] = deque(enumerate(plan.cells, 1))
        self._prerequisites = Counter(c.dataset for c in plan.cells if c.is_prerequisite)
        self._cached: dict[str, dict[str, bytes]] = {}
        self._attempts: dict[Any, _Attempt] = {}
        self._table = GrowingTable(context.directory)

    def run(self) -> None:
        """Keep the cluster busy until all cells have ended.

        Raises:
            Interrupted: if a signal stops the run, after the cells sent checkpoints.
        """
        try:
            with postponed() as stop:
                while self._left or self._attempts:
                    if stop.signum is not None:
                        raise Interrupted(stop.signum)
                    self._submit()
                    self._listen(SECONDS_TO_LISTEN)
                    self._close_ended()
        except Interrupted as error:
            raise Interrupted(error.signum, self._interrupt()) from error
        finally:
            for attempt in self._attempts.values():
                _end(attempt)

    def _submit(self) -> None:
        """Hand over twice as many cells as the cluster runs at once, so that no node waits."""
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
        slots = resources.get("CPU", 0) // self._resources.cpus
        if self._resources.gpus:
            slots = min(slots, resources.get("GPU", 0) // self._resources.gpus)
        return max(1, int(slots))

    def _starts(self, index: int, cell: Cell) -> bool:
        """Hand a cell over unless it is done already.

        Returns:
            False if the cell must wait for its dataset's extractors, which are trained first and
            sent along, or for another process that is working on it.
        """
        if self._prerequisites[cell.dataset] and not cell.is_prerequisite:
            return False
        with ExitStack() as stack:
            if not stack.enter_context(self._context.directory.claimed(cell.key)):
                return False
            if settle(cell, self._context, resolve_device("cpu")):
                reporter = self._reporter.started(index, len(self._plan.cells), cell.title)
                reporter.ended(ALREADY_DONE, 0.0)
                self._count_ended(cell)
            else:
                self._hand_over(_Attempt(index, cell, stack.pop_all()))
            return True

    def _hand_over(self, attempt: _Attempt) -> None:
        cell = attempt.cell
        folder = self._context.directory.cell(cell)
        remote = RemoteCell(
            cell=cell,
            dataset=self._plan.datasets.get(cell.dataset),
            context=self._context,
            device=self._device,
            files={name: folder.read(name) for name in folder.sums() if folder.exists(name)},
            cached=self._cached.get(cell.dataset, {}),
            trained={
                name: file.path.read_bytes()
                for name, file in self._context.resources.trained.items()
                if file.dataset == cell.dataset
            },
        )
        reference = self._remote.remote(remote, self._messages, attempt.name)
        self._attempts[reference] = attempt

    def _listen(self, seconds: float) -> None:
        """Wait for a message and process all that have arrived, except from lost attempts."""
        from ray.util.queue import Empty

        by_name = {attempt.name: attempt for attempt in self._attempts.values()}
        with contextlib.suppress(Empty):
            first = self._messages.get(timeout=seconds)
            others = self._messages.get_nowait_batch(self._messages.qsize())
            for name, *message in (first, *others):
                if name in by_name:
                    self._process(by_name[name], *message)

    def _process(self, attempt: _Attempt, kind: str, *content: Any) -> None:
        folder = self._context.directory.cell(attempt.cell)
        match kind:
            case "started" if attempt.reporter is None:
                attempt.reporter = self._reporter.started(
                    attempt.index, len(self._plan.cells), attempt.cell.title
                )
            case "began_stage" | "trained_batch" | "evaluated" | "warned" | "ended":
                getattr(attempt.reporter, kind)(*content)
            case "tracked":
                cell, method, arguments = content
                getattr(self._trackers(attempt, cell), method)(*arguments)
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

    def _trackers(self, attempt: _Attempt, cell: TrackedCell) -> CellTrackers:
        if attempt.trackers is None:
            assert attempt.reporter is not None
            attempt.trackers = self._context.tracking.trackers(cell, attempt.reporter.warned)
        return attempt.trackers

    def _keep(self, cell: Cell, files: Files) -> None:
        self._cached.setdefault(cell.dataset, {}).update(files)
        with contextlib.suppress(OSError):
            put(self._context.resources.cache, files)

    def _close_ended(self) -> None:
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
        """Run the cell again from the files that have arrived; fail it after ``TRIES`` attempts."""
        if attempt.tries < TRIES:
            again = _Attempt(attempt.index, attempt.cell, attempt.held, attempt.tries + 1)
            again.reporter, again.trackers = attempt.reporter, attempt.trackers
            self._hand_over(again)
            return
        cause = getattr(error, "cause", None) or error
        reason = f"lost {attempt.tries} times, the last time by {one_line(cause)}"
        _end(attempt)
        fail(attempt.cell, self._context, resolve_device("cpu"), reason)
        if attempt.reporter:
            seconds = time.perf_counter() - attempt.started
            attempt.reporter.ended(f"failed: {reason}", seconds)
        self._close(attempt)

    def _close(self, attempt: _Attempt) -> None:
        _end(attempt)
        self._count_ended(attempt.cell)
        self._table.update()

    def _count_ended(self, cell: Cell) -> None:
        if cell.is_prerequisite:
            self._prerequisites[cell.dataset] -= 1

    def _interrupt(self) -> str:
        """Make the cells save checkpoints and end, and return the checkpoints in words."""
        for reference in self._attempts:
            # Recursive, it would also cancel a message that the cell is sending.
            self._ray.cancel(reference, force=False, recursive=False)
        deadline = time.monotonic() + SECONDS_TO_SAVE
        waiting = list(self._attempts)
        while waiting and time.monotonic() < deadline:
            self._listen(SECONDS_TO_LISTEN)
            _, waiting = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        self._listen(SECONDS_TO_LISTEN)
        return "; ".join(f"{a.cell.title}: {a.saved}" for a in self._attempts.values() if a.saved)


def _end(attempt: _Attempt) -> None:
    """Release the lock on an attempt's cell, and end its log."""
    if attempt.trackers is not None:
        attempt.trackers.close()
    attempt.held.close()


def _queue(ray: Any) -> Any:
    """Create the queue of messages on this node, since any other node can be lost."""
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(QUEUE_SIZE, {"num_cpus": 0, "scheduling_strategy": here})
