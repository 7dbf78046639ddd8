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
    from bench.store import CellFolder


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
@click.option("--strict", is_flag=True, help="Exit with 1 if anything was skipped.")
@click.option("--dry-run", is_flag=True, help="Print the cells and what is done; run nothing.")
def command(seeds: str | None, strict: bool, dry_run: bool, **asked: Any) -> int:
    """Train and score models on datasets, and write a tidy table.

    The same command again does only what is missing. Exit codes: 0 nothing failed, 1 a cell
    failed, 2 a mistake in what was asked, 130 interrupted.
    """
    from rich.console import Console

    from bench.api import execute, prepare

    job = prepare(seeds=_seeds(seeds), download=not dry_run, **asked)
    console = Console()
    if dry_run:
        _print_plan(job, console)
        return 0
    from bench.cli.summary import print_summary
    from bench.progress import reporting

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

    from bench.store import RunDirectory

    directory = RunDirectory(job.out)
    table = Table(title=f"{len(job.plan.cells)} cells for {job.out}", title_justify="left")
    for heading in ("key", "model", "backend", "dataset", "protocol", "seed", "state"):
        table.add_column(heading, overflow="fold")
    for cell in job.plan.cells:
        names = (cell.key, cell.model, cell.backend, cell.dataset, cell.protocol.name)
        table.add_row(*names, str(cell.seed), _state(cell, directory.cell(cell), job))
    console.print(table, markup=False)


def _state(cell: "Cell", folder: "CellFolder", job: "Job") -> str:
    """What is done of a cell, in words."""
    if cell.skipped:
        return f"skipped: {cell.skipped}"
    from bench.execution.dispatch import metrics_of

    skipped = folder.skipped()
    metrics = metrics_of(cell, job.metrics)
    missing = [metric.name for metric in folder.missing(metrics.values())]
    left = [name for name in missing if name not in skipped]
    if len(missing) == len(metrics):
        return "to do"
    if left:
        return f"missing {', '.join(left)}"
    return f"done, {len(missing)} metrics skipped" if missing else "done"
