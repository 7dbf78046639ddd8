"""``bench ls``: what there is, without importing it."""

from collections.abc import Sequence
from pathlib import Path

import click

from bench.cli import options

KINDS = ("models", "backends", "datasets", "metrics", "protocols")
RESULTS = "results"
FORMATS = ("table", "csv", "md", "json")


@click.command("ls")
@click.argument("kind", type=click.Choice([*KINDS, RESULTS]))
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@options.where
@click.option("--sort", metavar="COLUMN", help="Sort by a column; -COLUMN sorts downwards.")
@click.option("--columns", metavar="NAME,...", help="Show these columns, or all.")
@click.option("--format", "file_format", type=click.Choice(FORMATS), help="How rows are printed.")
def command(
    kind: str,
    directory: Path | None,
    conditions: tuple[str, ...],
    sort: str | None,
    columns: str | None,
    file_format: str | None,
) -> None:
    """List models, backends, datasets, metrics, protocols, or the results in DIR.

    Names in the first column are what bench run takes. The options are for results:

    bench ls results DIR --where metric=fad,ssim --where layer= --sort value
    """
    if kind == RESULTS:
        if directory is None:
            raise click.UsageError("bench ls results needs a run directory: bench ls results DIR.")
        from bench.report.listing import print_rows

        print_rows(directory, conditions, sort, columns, file_format or "table")
        return
    if directory is not None or conditions or sort or columns or file_format:
        raise click.UsageError(f"bench ls {kind} takes no directory and no option.")
    _list(kind)


def _list(kind: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    headings, rows = _protocols() if kind == "protocols" else _plugins(kind)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table, markup=False)


def _plugins(kind: str) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    from bench import registry

    known: registry.Registry[object] = getattr(registry, kind)
    rows = [(entry.name, entry.summary, entry.package) for entry in known.entries()]
    return (kind.removesuffix("s"), "what it is", "from"), rows


def _protocols() -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    from bench.protocol import builtin_protocols, load_protocol

    rows = [
        (name, load_protocol(name).description, load_protocol(name).hash[:12])
        for name in builtin_protocols()
    ]
    return ("protocol", "what it is", "hash"), rows
