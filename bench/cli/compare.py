"""``bench compare``: the regression gate."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli import options
from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from bench.comparison import Comparison
    from bench.store.declarations import MetricDeclaration

FORMATS = ("terminal", "md", "junit", "github")
PLAIN_WIDTH = 160


@click.command("compare")
@options.run_directory("run", "RUN")
@options.run_directory("reference", "REFERENCE")
@click.option(
    "--format",
    "output_format",
    type=click.Choice(FORMATS),
    default="terminal",
    show_default=True,
    help="A table for the terminal, Markdown for a pull request's comment, JUnit XML for a CI "
    "server, or annotations for GitHub Actions.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the comparison in this format to a file, and print the table as well.",
)
@click.option("--all", "show_all", is_flag=True, help="List better, same and new metrics too.")
@click.option(
    "--strict",
    is_flag=True,
    help="Count single layers and time steps too, count any change of a metric without a direction "
    "as a regression, and count incomparable values as missing.",
)
@click.option("--machine", is_flag=True, help="Count throughput and memory too.")
def command(
    run: Path,
    reference: Path,
    output_format: str,
    out: Path | None,
    show_all: bool,
    strict: bool,
    machine: bool,
) -> int:
    """Compare the run directory RUN with REFERENCE: is any metric worse?

    Exit codes: 0 no regression, 1 a regression, 2 a mistake in the command, 3 nothing comparable,
    or cells or observations of the reference are missing.
    """
    from rich.console import Console

    from bench.comparison import Policy, compare
    from bench.comparison.output.console import print_comparison
    from bench.store.run_directory import load_results

    tables = load_results(run), load_results(reference)
    policy = Policy(_declarations(run, reference, tables), strict, machine)
    comparison = compare(*tables, policy)
    if output_format == "terminal" or out:
        print_comparison(comparison, Console(), show_all)
    else:
        click.echo(_text(comparison, output_format, show_all), nl=False)
    if out:
        _write(out, _text(comparison, output_format, show_all))
        click.echo(f"Written: {out}")
    return comparison.exit_code


def _declarations(
    run: Path, reference: Path, rows: "Iterable[pd.DataFrame]"
) -> "dict[str, MetricDeclaration]":
    """Return what metrics declare: in the run, or else in the reference, or else as installed."""
    from bench.store.declarations import declared, installed

    known = declared(reference) | declared(run)
    names = {name for table in rows for name in table["metric"].dropna()}
    return known | installed(sorted(names - set(known)))


def _text(comparison: "Comparison", output_format: str, show_all: bool) -> str:
    if output_format == "md":
        from bench.comparison.output.markdown import to_markdown

        return to_markdown(comparison, show_all)
    if output_format == "junit":
        from bench.comparison.output.junit import to_junit

        return to_junit(comparison)
    if output_format == "github":
        from bench.comparison.output.github import to_github

        return to_github(comparison)
    import io

    from rich.console import Console

    from bench.comparison.output.console import print_comparison

    text = io.StringIO()
    print_comparison(comparison, Console(file=text, width=PLAIN_WIDTH), show_all)
    return text.getvalue()


def _write(out: Path, text: str) -> None:
    from bench.system.files import atomic

    try:
        with atomic(out) as file:
            file.write(text.encode())
    except OSError as error:
        raise BenchError(
            f"--out {out} cannot be written: {error.strerror}. Choose another file."
        ) from error
