"""``bench run``: train and evaluate models on datasets."""

from typing import TYPE_CHECKING, Any

import click

from bench.cli import EXIT_FAILED, options
from bench.errors import BenchError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.api import PreparedRun
    from bench.plan.cells import Cell


@click.command("run")
@options.run
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Number of cells to run at a time.  [default: one per GPU, or as many as the usable CPUs "
    "have room for]",
)
def command(**given: Any) -> int:
    """Train and evaluate models on datasets, and write a table of results.

    The same command again runs only what is missing, and resumes what was interrupted.

    Exit codes: 0 nothing failed, 1 a cell failed or the results cannot be written, 2 a mistake in
    the command, 75 the time limit was reached, 130 interrupted, 143 terminated.
    """
    return run_request(**given)


def run_request(*, seeds: str | None, strict: bool, dry_run: bool, **fields: Any) -> int:
    """Run a request and print its summary, or print its cells.

    Args:
        seeds: seeds separated by commas; None for the protocol's seeds.
        strict: True to return :data:`EXIT_FAILED` for skipped rows as well.
        dry_run: True to print the cells and their state, and run nothing.
        fields: other fields of :class:`bench.request.RunRequest`.

    Returns:
        The exit code.

    Raises:
        BenchError: if the request contains a mistake.
    """
    from rich.console import Console

    from bench.api import execute, prepare
    from bench.request import RunRequest

    prepared = prepare(RunRequest(seeds=_seeds(seeds), **fields), download=not dry_run)
    out, console = prepared.context.directory.path, Console()
    if not prepared.plan.cells:
        click.echo(f"Nothing failed in {out}.")
        return 0
    if dry_run:
        _print_plan(prepared, console)
        _print_costs(prepared, console)
        return 0
    from bench.report.run_summary import print_summary
    from bench.store.schema import FAILED, SKIPPED
    from bench.system.progress import reporting

    with reporting(console) as reporter:
        rows = execute(prepared, reporter)
    print_summary(rows, out, console)
    failed, skipped = ((rows["status"] == status).any() for status in (FAILED, SKIPPED))
    return EXIT_FAILED if failed or (strict and skipped) else 0


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    seeds = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [seed for seed in seeds if not seed.isdecimal()]
    if wrong:
        raise BenchError(f"--seeds {text!r}: expected whole numbers from 0, got {wrong[0]!r}.")
    return [int(seed) for seed in seeds]


def _print_plan(prepared: "PreparedRun", console: "Console") -> None:
    from rich.table import Table

    cells, out = prepared.plan.cells, prepared.context.directory.path
    table = Table(title=f"{len(cells)} cells for {out}", title_justify="left")
    for heading in ("key", "model", "backend", "dataset", "protocol", "seed", "state"):
        table.add_column(heading, overflow="fold")
    for cell in cells:
        names = (cell.key, cell.model, cell.backend, cell.dataset, cell.protocol_name)
        table.add_row(*names, str(cell.seed), _state(cell, prepared))
    console.print(table, markup=False)


def _print_costs(prepared: "PreparedRun", console: "Console") -> None:
    """Print what the features of metrics will cost, measured on a few images."""
    from rich.table import Table

    from bench.execution.extraction_cost import BATCH, TIMED_BATCHES, extraction_costs
    from bench.system.devices import resolve_device
    from bench.system.formatting import number

    device = resolve_device(prepared.request.device)
    costs = extraction_costs(prepared.plan, prepared.context, device)
    if not costs:
        return
    title = f"Features for the metrics (timed on {TIMED_BATCHES} batches of {BATCH} images)"
    table = Table(title=title, title_justify="left")
    for heading in ("extractor", "generated images", "dataset images", "minutes"):
        table.add_column(heading, overflow="fold")
    for cost in costs:
        dataset = "unknown" if cost.dataset is None else f"{cost.dataset:,}"
        minutes = f"unknown, {cost.reason}" if cost.minutes is None else number(cost.minutes, 2)
        table.add_row(cost.extractor, f"{cost.generated:,}", dataset, minutes)
    console.print(table, markup=False)


def _state(cell: "Cell", prepared: "PreparedRun") -> str:
    """Describe what is done of a cell."""
    if cell.skipped:
        return f"skipped: {cell.skipped}"
    from bench.store.schema import CHECKPOINT_FILE
    from bench.system.checksums import DamagedFileError

    folder = prepared.context.directory.cell(cell)
    metrics = prepared.context.metrics[cell.kind]
    try:
        skipped = folder.skipped()
    except DamagedFileError:
        return "its rows are damaged: to do again"
    if folder.exists(CHECKPOINT_FILE):
        return "interrupted: resumes from its checkpoint"
    asked = [metric for name, metric in metrics.items() if name in prepared.context.asked]
    missing = [metric.name for metric in folder.missing(asked)]
    left = [name for name in missing if name not in skipped]
    if len(missing) == len(asked):
        return "to do"
    if left:
        return f"missing {', '.join(left)}"
    return f"done, {len(missing)} metrics skipped" if missing else "done"
