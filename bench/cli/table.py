"""``bench table``: what papers print, beside what a run measured."""

from pathlib import Path

import click

from bench.errors import BenchError


@click.command("table")
@click.argument("name")
@click.argument("run", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    default="terminal",
    show_default=True,
    help="terminal, md, latex, csv or html.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="A file to write to in place of the terminal."
)
def command(name: str, run: Path, form: str, out: Path | None) -> None:
    """Show the table NAME of a paper with the run in DIR beside it.

    NAME is fsvae-table-1, esvae-table-1 or fsvae-cost. Each published number has ours with its
    spread over seeds, the difference, whether the protocols agree, and, where ours is missing,
    what to run.
    """
    from bench.report.papers.paper_table import paper_table, render
    from bench.store.run_directory import load_results
    from bench.system.files import atomic

    text = render(paper_table(name, load_results(run), run), form)
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        with atomic(out) as file:
            file.write(text.encode())
    except OSError as error:
        raise BenchError(
            f"{out} cannot be written: {error.strerror}. Choose another with --out."
        ) from error
