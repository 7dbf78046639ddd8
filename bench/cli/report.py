"""``bench report``: a run as one page."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from bench.cli import options


@click.command("report")
@options.run_directories
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
    help="The file to write; needed for several runs.  [default: report.html or report.md in DIR]",
)
def command(directories: tuple[Path, ...], output_format: str, out: Path | None) -> None:
    """Write the report of the run directory DIR, or of several as if they were one.

    The report has a summary, warnings about rows that are not comparable, tables, plots, images,
    provenance, and the reasons for missing numbers. The HTML file needs no network.
    """
    from bench.report.page.write import WRITERS
    from bench.store.merging import merge_runs

    write = WRITERS[output_format]
    if len(directories) == 1:
        written = write(directories[0], out)
    elif out is None:
        raise click.UsageError("A report of several runs needs --out FILE.")
    else:
        with TemporaryDirectory() as folder:
            merged = Path(folder) / " and ".join(path.resolve().name for path in directories)
            merge_runs(directories, merged, os.symlink)
            written = write(merged, out)
    click.echo(f"Report: {written}")
