"""``bench score``: score images that exist, or a model whose weights exist."""

from pathlib import Path
from typing import Any

import click

from bench.cli import EXIT_FAILED, completion, options
from bench.registry import DEFAULT_BACKEND


@click.command("score")
@click.argument("images", type=click.Path(path_type=Path), required=False)
@click.option(
    "--dataset",
    default="digits",
    show_default=True,
    help="Dataset that the images are compared with: a name, NAME=PATH, folder:PATH or npz:PATH.",
)
@click.option("--name", help="Name in tables and plots.  [default: the file's or folder's]")
@options.protocol
@options.settings
@click.option(
    "--reconstructions",
    type=click.Path(path_type=Path),
    help="Reconstructions of all test images, in their order: a folder or a file.",
)
@click.option(
    "--range",
    "image_range",
    metavar="LOW,HIGH",
    help="Range of the pixel values, for example 0,1 or -1,1.  [default: integers in 0..255]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the metrics' draws.")
@options.out
@options.data_root
@options.device
@click.option(
    "--model",
    help="Score this registered model with the weights of --weights FILE, instead of IMAGES.",
    shell_complete=completion.names("models"),
)
@click.option(
    "--backend",
    default=DEFAULT_BACKEND,
    show_default=True,
    help="Spiking backend of the model.",
    shell_complete=completion.names("backends"),
)
@click.option(
    "--weights",
    multiple=True,
    metavar="FILE | NAME=PATH",
    help="FILE (safetensors): weights of the --model. NAME=PATH: weights that a metric needs. Can "
    "be repeated.",
)
@options.reference
@options.metrics
@options.skip
@options.offline
def command(**fields: Any) -> int:
    """Score IMAGES that exist, or a model whose weights exist.

    IMAGES is a folder, or a .npz, .npy or .safetensors file with the array arr_0, images or
    samples. The run directory gets one more cell, with the backend external, which is compared with
    trained models in tables and plots. With --model and --weights FILE, a registered model that
    was trained elsewhere is scored without training.

    Exit codes: 0 nothing failed, 1 a metric failed, 2 a mistake in the command.
    """
    from rich.console import Console

    from bench.api import execute, prepare_score
    from bench.report.run_summary import print_summary
    from bench.request import ScoreRequest
    from bench.store.schema import FAILED
    from bench.system.progress import reporting

    prepared, console = prepare_score(ScoreRequest(**fields)), Console()
    with reporting(console) as reporter:
        rows = execute(prepared, reporter)
    print_summary(rows, prepared.context.directory.path, console)
    return EXIT_FAILED if (rows["status"] == FAILED).any() else 0
