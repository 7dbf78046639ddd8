"""``bench stats``: write reference statistics of a dataset or of images that exist."""

from pathlib import Path
from typing import Any

import click

from bench.cli import completion, options


@click.command("stats")
@click.argument("images", metavar="DATASET|FOLDER|FILE")
@click.option(
    "--extractor",
    required=True,
    help="Extractor of the features, with its preprocessing; bench ls extractors lists all.",
    shell_complete=completion.names("extractors"),
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The .npz file to write."
)
@click.option(
    "--split",
    help="train, test or validation.  [default: the split that the extractor's metrics compare "
    "with]",
)
@click.option(
    "--protocol",
    default="standard",
    show_default=True,
    help="Protocol that prepares a dataset's images: a name or a TOML file.",
    shell_complete=completion.protocols,
)
@options.settings
@options.data_root
@options.device
@options.weights
@options.image_range
@options.offline
def command(**fields: Any) -> int:
    """Write mean and covariance of an extractor's features, as pytorch-fid and clean-fid read them.

    A DATASET is prepared by the protocol; a FOLDER or FILE of images is used as it is. The file
    serves as --reference of bench run and bench score.

    Exit codes: 0, or 2 a mistake in the command.
    """
    from rich.console import Console

    from bench.api import statistics
    from bench.request import StatisticsRequest
    from bench.system.progress import reporting

    with reporting(Console()) as reporter:
        made = statistics(StatisticsRequest(**fields, reporter=reporter))
    click.echo(f"{fields['out']}: mu and sigma of {made.extractor}, {made}")
    return 0
