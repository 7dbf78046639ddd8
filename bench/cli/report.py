"""``bench report``: a run as one page."""

from pathlib import Path

import click

from bench.cli import options


@click.command("report")
@options.run_directory("directory")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["html", "md"]),
    default="html",
    show_default=True,
    help="One self-contained HTML file, or Markdown and a folder of images.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write.  [default: report.html or report.md in DIR]",
)
def command(directory: Path, output_format: str, out: Path | None) -> None:
    """Write the report of the run directory DIR.

    The report has a summary, warnings about rows that are not comparable, tables, plots, images,
    provenance, and the reasons for missing numbers. The HTML file needs no network.
    """
    from bench.report.page.write import WRITERS

    written = WRITERS[output_format](directory, out)
    click.echo(f"Report: {written}")
