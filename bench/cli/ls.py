"""``bench ls``: what there is, without importing it."""

from collections.abc import Sequence

import click

KINDS = ("models", "backends", "datasets", "metrics", "protocols")


@click.command("ls")
@click.argument("kind", type=click.Choice(KINDS))
def command(kind: str) -> None:
    """List models, backends, datasets, metrics or protocols.

    Names in the first column are what bench run takes.
    """
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
