"""``bench compare``: the regression gate."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from bench.comparison import Comparison
    from bench.store.declarations import MetricDeclaration

FORMATS = ("terminal", "md", "junit")
PLAIN_WIDTH = 160


@click.command("compare")
@click.argument("run", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("reference", metavar="REFERENCE", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="terminal",
    show_default=True,
    help="For the terminal, a pull request's comment, or a CI server.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write that to a file; the terminal gets its own form.",
)
@click.option("--all", "everything", is_flag=True, help="List better, same and new ones too.")
@click.option(
    "--strict",
    is_flag=True,
    help="Single layers and time steps count too, a change without a direction is a regression, "
    "and an incomparable pair is a missing one.",
)
@click.option("--machine", is_flag=True, help="Throughput and memory count too.")
@click.option("--update", is_flag=True, help="Write DIR into REFERENCE instead of comparing.")
@click.option("--allow-failed", is_flag=True, help="With --update: take failed rows along.")
@click.option("--keep", is_flag=True, help="With --update: keep cells of REFERENCE that DIR lacks.")
def command(
    run: Path,
    reference: Path,
    form: str,
    out: Path | None,
    everything: bool,
    strict: bool,
    machine: bool,
    update: bool,
    allow_failed: bool,
    keep: bool,
) -> int:
    """Compare a run with a reference: is any metric worse?

    Exit codes: 0 no regression, 1 a regression, 3 nothing comparable, or cells or observations of
    the reference missing, 2 a mistake in what was asked.
    """
    for option, given in {"--allow-failed": allow_failed, "--keep": keep}.items():
        if given and not update:
            raise BenchError(f"{option} goes with --update only.")
    if update:
        return _update(run, reference, allow_failed, keep)
    from rich.console import Console

    from bench.comparison import Policy, compare
    from bench.comparison.output.console import print_comparison
    from bench.store.run_directory import load_results

    tables = load_results(run), load_results(reference)
    policy = Policy(_declarations(run, reference, tables), strict, machine)
    comparison = compare(*tables, policy)
    if form == "terminal" or out:
        print_comparison(comparison, Console(), everything)
    else:
        click.echo(_text(comparison, form, everything), nl=False)
    if out:
        _write(out, _text(comparison, form, everything))
        click.echo(f"Written: {out}")
    return comparison.exit_code


def _update(run: Path, reference: Path, allow_failed: bool, keep: bool) -> int:
    from bench.comparison.reference import update_reference

    for path in update_reference(run, reference, allow_failed, keep):
        click.echo(f"Written: {path} ({path.stat().st_size / 1024:,.0f} KiB)")
    return 0


def _declarations(
    run: Path, reference: Path, rows: "Iterable[pd.DataFrame]"
) -> "dict[str, MetricDeclaration]":
    """Return what metrics declare: in the run, or else in the reference, or else as installed."""
    from bench.store.declarations import declared, installed

    known = declared(reference) | declared(run)
    names = {name for table in rows for name in table["metric"].dropna()}
    return known | installed(sorted(names - set(known)))


def _text(comparison: "Comparison", form: str, everything: bool) -> str:
    if form == "md":
        from bench.comparison.output.markdown import to_markdown

        return to_markdown(comparison, everything)
    if form == "junit":
        from bench.comparison.output.junit import to_junit

        return to_junit(comparison)
    import io

    from rich.console import Console

    from bench.comparison.output.console import print_comparison

    text = io.StringIO()
    print_comparison(comparison, Console(file=text, width=PLAIN_WIDTH), everything)
    return text.getvalue()


def _write(out: Path, text: str) -> None:
    from bench.system.files import atomic

    try:
        with atomic(out) as file:
            file.write(text.encode())
    except OSError as error:
        raise BenchError(f"--out {out} cannot be written: {error.strerror}.") from error
