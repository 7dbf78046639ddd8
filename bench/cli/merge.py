"""``bench merge``: several runs as one run directory."""

from pathlib import Path

import click

from bench.cli import options


@click.command("merge")
@options.run_directories
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="The new run directory. It must not exist, or be empty.",
)
def command(directories: tuple[Path, ...], out: Path) -> None:
    """Write the cells of the run directories DIR... into one run directory.

    A cell that several of them have must have the same numbers, except for speed and memory.
    """
    from bench.store.merging import merge_runs

    cells = merge_runs(directories, out)
    click.echo(f"Merged: {out} ({cells} cells of {len(directories)} runs)")
