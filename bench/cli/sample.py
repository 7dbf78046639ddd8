"""``bench sample``: write samples of a trained model."""

from pathlib import Path
from typing import Any

import click

from bench.cli import options


@click.command("sample")
@options.run_directory("run", "RUN")
@click.option("--model", required=True, help="Name of the model.")
@click.option("--backend", help="Its backend, if the run has several.")
@click.option("--dataset", help="Its dataset, if the run has several.")
@click.option("--seed", type=int, help="Its seed, if the run has several.")
@click.option("--n", type=click.IntRange(min=1), required=True, help="Number of images.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="A .npz file (arr_0, uint8, as ADM's), a .npy or .safetensors file (float32 in [-1, 1]), "
    "or a folder for PNG files.",
)
@options.device
def command(run: Path, n: int, out: Path, device: str, **wanted: Any) -> int:
    """Write samples of a model that was trained in RUN.

    The images are those that its metrics have seen, as far as these go.

    Exit codes: 0, or 2 a mistake in the command.
    """
    from bench.api import sample

    sample(run, n=n, out=out, device=device, **wanted)
    click.echo(f"{n} images in {out}")
    return 0
