"""``bench ls``: the plug-ins and protocols that are installed.

Only plug-ins of other packages are imported, to show the errors of those that cannot be used.
"""

from collections.abc import Sequence

import click

from bench.registry import registries

PROTOCOLS = "protocols"


@click.command("ls")
@click.argument("kind", type=click.Choice([*registries(), PROTOCOLS]))
def command(kind: str) -> None:
    """List the installed models, backends, datasets, metrics and so on by name.

    The first column has the names that other commands take, the last one the package that each
    plug-in comes from. A plug-in of another package that cannot be used is listed with its error.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    headings, rows = _protocols() if kind == PROTOCOLS else _plugins(kind)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table, markup=False)


def _plugins(kind: str) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    known = registries()[kind]
    rows = []
    for entry in known.entries():
        error = known.error(entry.name) if entry.external else None
        rows.append((entry.name, error or entry.summary, entry.package))
    return (known.kind, "description", "package"), rows


def _protocols() -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    from bench.protocol import builtin_protocols, load_protocol

    protocols = [load_protocol(name) for name in builtin_protocols()]
    rows = [(protocol.name, protocol.description, protocol.hash[:12]) for protocol in protocols]
    return ("protocol", "description", "hash"), rows
