"""``bench run``: train and score a selection of cells."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli import EXIT_FAILED, options
from bench.errors import BenchError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.api import Job
    from bench.plan import Cell
    from bench.store.run_directory import CellFolder


@click.command("run")
@options.models
@options.datasets
@options.backends
@options.protocol
@options.settings
@click.option("--seeds", help="Comma-separated whole numbers.  [default: the protocol's]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The run directory; what it holds is kept.  [default: runs/PROTOCOL]",
)
@options.data_root
@options.device
@click.option(
    "--weights",
    multiple=True,
    metavar="NAME=PATH",
    help="A file of weights that a metric needs, e.g. --weights inception=FILE; may be repeated.",
)
@click.option(
    "--checkpoint-every",
    default="10min",
    show_default=True,
    metavar="INTERVAL",
    help="How often a training is written down: 30s, 10min, 1h, 2epochs, never.",
)
@click.option("--retry", type=click.Choice(["failed"]), help="Run the cells that failed only.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Cells at a time, in worker processes that share the threads and the GPUs.",
)
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Run the cells on this machine, or on a Ray cluster.",
)
@click.option("--address", help="Of a running Ray cluster.  [default: one is started here]")
@click.option(
    "--cpus-per-cell", type=click.IntRange(min=1), default=1, show_default=True, help="With ray."
)
@click.option(
    "--gpus-per-cell",
    type=click.FloatRange(min=0),
    help="With ray; a fraction lets cells share a GPU.  [default: 1 if the cluster has any]",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if anything was skipped.")
@click.option("--dry-run", is_flag=True, help="Print the cells and what is done; run nothing.")
def command(seeds: str | None, strict: bool, dry_run: bool, **asked: Any) -> int:
    """Train and score models on datasets, and write a tidy table.

    The same command again does only what is missing, and goes on with what was interrupted.
    Exit codes: 0 nothing failed, 1 a cell failed or nothing can be written, 2 a mistake in what
    was asked, 130 interrupted, 143 terminated.
    """
    from rich.console import Console

    from bench.api import RunRequest, execute, prepare

    job = prepare(RunRequest(seeds=_seeds(seeds), download=not dry_run, **asked))
    console = Console()
    if not job.plan.cells:
        click.echo(f"Nothing failed in {job.out}.")
        return 0
    if dry_run:
        _print_plan(job, console)
        return 0
    from bench.report.run_summary import print_summary
    from bench.system.progress import reporting

    with reporting(console) as reporter:
        rows = execute(job, reporter)
    print_summary(rows, job.out, console)
    failed = (rows["status"] == "failed").any()
    skipped = (rows["status"] == "skipped").any()
    return EXIT_FAILED if failed or (strict and skipped) else 0


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    seeds = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [seed for seed in seeds if not seed.isdecimal()]
    if wrong:
        raise BenchError(f"--seeds {text!r}: expected whole numbers from 0, got {wrong[0]!r}.")
    return [int(seed) for seed in seeds]


def _print_plan(job: "Job", console: "Console") -> None:
    from rich.table import Table

    from bench.store.run_directory import RunDirectory

    directory = RunDirectory(job.out)
    table = Table(title=f"{len(job.plan.cells)} cells for {job.out}", title_justify="left")
    for heading in ("key", "model", "backend", "dataset", "protocol", "seed", "state"):
        table.add_column(heading, overflow="fold")
    for cell in job.plan.cells:
        names = (cell.key, cell.model, cell.backend, cell.dataset, cell.protocol.name)
        table.add_row(*names, str(cell.seed), _state(cell, directory.cell(cell), job))
    console.print(table, markup=False)


def _state(cell: "Cell", folder: "CellFolder", job: "Job") -> str:
    """Return the state of a cell, in words."""
    if cell.skipped:
        return f"skipped: {cell.skipped}"
    from bench.execution.dispatch import metrics_of
    from bench.store.schema import CHECKPOINT_FILE
    from bench.system.checksums import DamagedFileError

    try:
        skipped = folder.skipped()
    except DamagedFileError:
        return "its rows are damaged: to do again"
    if folder.exists(CHECKPOINT_FILE):
        return "interrupted: goes on from its checkpoint"
    metrics = metrics_of(cell, job.metrics)
    missing = [metric.name for metric in folder.missing(metrics.values())]
    left = [name for name in missing if name not in skipped]
    if len(missing) == len(metrics):
        return "to do"
    if left:
        return f"missing {', '.join(left)}"
    return f"done, {len(missing)} metrics skipped" if missing else "done"
