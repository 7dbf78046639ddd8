"""``bench report``: a run as one page."""

from pathlib import Path

import click


@click.command("report")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["html", "md"]),
    default="html",
    show_default=True,
    help="One self-contained HTML file, or Markdown with its images beside it.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write.  [default: report.html or report.md in DIR]",
)
def command(directory: Path, file_format: str, out: Path | None) -> None:
    """Write the report of the run directory DIR.

    Summary, warnings where rows are not comparable, tables, plots, images, provenance, and why
    numbers are missing. The HTML file needs no network and opens from disk.
    """
    from bench.report.page.write import WRITERS

    written = WRITERS[file_format](directory, out)
    click.echo(f"Report: {written}")
