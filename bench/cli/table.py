"""``bench table``: the tables of papers, with a run's results next to the published numbers."""

from pathlib import Path

import click

from bench.cli import completion, options
from bench.errors import BenchError


@click.command("table")
@click.argument("name", shell_complete=completion.tables)
@options.run_directory("run")
@click.option(
    "--format",
    "output_format",
    default="terminal",
    show_default=True,
    help="terminal, md, latex, csv or html.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write to this file instead of the terminal."
)
def command(name: str, run: Path, output_format: str, out: Path | None) -> None:
    """Show the table NAME of a paper with the results of the run directory DIR.

    NAME is fsvae-table-1, esvae-table-1, fsvae-cost, taid-table-1, taid-table-2, sgad-table,
    sdm-table-1 or spiking-diffusion-abstract. Next to each published number stand the suite's mean
    and spread over seeds, the difference, and whether the protocols agree. Where a result is
    missing, the table says which command computes it.
    """
    from bench.report.papers.paper_table import paper_table, render
    from bench.store.run_directory import load_results
    from bench.system.files import atomic

    text = render(paper_table(name, load_results(run), run), output_format)
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        with atomic(out) as file:
            file.write(text.encode())
    except OSError as error:
        raise BenchError(
            f"{out} cannot be written: {error.strerror}. Choose another file with --out."
        ) from error
