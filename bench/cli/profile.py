"""``bench profile``: how fast models are, and where the time goes."""

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
@options.data_root
@options.device
@click.option("--batch-size", type=int, help="Images per call.  [default: the protocol's]")
@click.option("--repeats", default=5, show_default=True, help="Timed calls, after a warm-up.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="Tables to read, in the terminal or Markdown, or all rows.",
)
def command(file_format: str, **asked: Any) -> int:
    """Time models: images per second, time by layer, memory.

    Training, reconstruction and sampling of one batch, each on its own; the model is built from the
    protocol's first seed. Nothing is kept. Exit codes: 0 nothing failed, 1 a model failed, 2 a
    mistake in what was asked.
    """
    from rich.console import Console

    from bench.api import profile
    from bench.system.progress import reporting

    with reporting(Console(stderr=True)) as reporter:
        rows = profile(**asked, reporter=reporter)
    _print(rows, file_format)
    return EXIT_FAILED if (rows["status"] == "failed").any() else 0


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
