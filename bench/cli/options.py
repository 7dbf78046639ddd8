"""Options that several verbs have."""

from pathlib import Path

import click

from bench.system.paths import VARIABLE

models = click.option(
    "--models", default="all", show_default=True, help="Comma-separated names, or all."
)
datasets = click.option(
    "--datasets",
    default="digits",
    show_default=True,
    help="Comma-separated names, NAME=PATH (a .npz file or a folder), folder:PATH, npz:PATH, "
    "or all.",
)
backends = click.option(
    "--backends", default="all", show_default=True, help="Comma-separated names, or all."
)
protocol = click.option(
    "--protocol",
    default="smoke",
    show_default=True,
    help="A built-in protocol (see bench ls protocols) or a TOML file.",
)
settings = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one value of the protocol, e.g. --set epochs=3; may be repeated.",
)
data_root = click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    help=f"Where datasets are looked for and downloaded to.  [default: ${VARIABLE}, else the "
    "user's cache]",
)
device = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)
where = click.option(
    "--where",
    "conditions",
    multiple=True,
    metavar="COLUMN=VALUE,...",
    help="Only rows that have one of the values, and all conditions if given several times; "
    "'layer=' are those without one. Words may have * and ?.",
)
