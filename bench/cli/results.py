"""``bench results``: the rows of a run, filtered and sorted."""

from pathlib import Path

import click

from bench.cli import options

FORMATS = ("table", "csv", "md", "json")


@click.command("results")
@options.run_directory("directory")
@options.where
@click.option(
    "--sort", metavar="COLUMN", help="Sort by a column, or by -COLUMN in descending order."
)
@click.option("--columns", metavar="NAME,...", help="Show only these columns, or all.")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="How to print the rows.",
)
def command(
    directory: Path,
    conditions: tuple[str, ...],
    sort: str | None,
    columns: str | None,
    output_format: str,
) -> None:
    """List the rows of the run directory DIR.

    bench results DIR --where metric=fad,ssim --where layer= --sort value
    """
    from bench.report.listing import print_rows

    print_rows(directory, conditions, sort, columns, output_format)
