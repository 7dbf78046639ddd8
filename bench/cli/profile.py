"""``bench profile``: measure the speed of models and the time per layer."""

from typing import TYPE_CHECKING, Any

import click

from bench.cli import EXIT_FAILED, options

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("table", "csv", "md", "json")


@click.command("profile")
@options.models
@options.datasets
@options.backends
@options.protocol
@options.settings
@options.image_range
@options.data_root
@options.device
@click.option(
    "--batch-size", type=int, help="Number of images per call.  [default: the protocol's]"
)
@click.option(
    "--repeats", default=5, show_default=True, help="Number of timed calls, after one to warm up."
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="Tables for the terminal or in Markdown, or all rows as CSV or JSON.",
)
def command(file_format: str, **fields: Any) -> int:
    """Time models: images per second, time per layer, memory.

    Training, reconstruction, sampling and scoring of one batch are timed separately. Models are
    built from the protocol's first seed, and nothing is saved.

    Exit codes: 0 nothing failed, 1 a model failed, 2 a mistake in the command.
    """
    from bench.api import profile
    from bench.store.schema import FAILED

    rows = profile(**fields)
    _print(rows, file_format)
    return EXIT_FAILED if (rows["status"] == FAILED).any() else 0


def _print(rows: "pd.DataFrame", file_format: str) -> None:
    from bench.report import profile_tables

    match file_format:
        case "csv":
            click.echo(rows.to_csv(index=False), nl=False)
        case "json":
            click.echo(rows.to_json(orient="records", indent=2, double_precision=15))
        case "md":
            click.echo(profile_tables.markdown(rows))
        case _:
            profile_tables.print_tables(rows)
