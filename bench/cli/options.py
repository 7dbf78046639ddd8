"""Options that several commands share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bench.cli import completion
from bench.metrics.choice import PRESETS
from bench.registry import DEFAULT_BACKEND
from bench.system.network import OFFLINE_VARIABLE
from bench.system.paths import VARIABLE

models = click.option(
    "--models",
    default="all",
    show_default=True,
    help="Comma-separated names, or all.",
    shell_complete=completion.names("models", "all"),
)
datasets = click.option(
    "--datasets",
    default="digits",
    show_default=True,
    help="Comma-separated names, NAME=PATH (a .npz file or a folder), folder:PATH, npz:PATH, "
    "or all. PATH cannot contain a comma.",
    shell_complete=completion.names("datasets", "all"),
)
backends = click.option(
    "--backends",
    default=DEFAULT_BACKEND,
    show_default=True,
    help="Comma-separated names of the backends that run each spiking model, or all.",
    shell_complete=completion.names("backends", "all"),
)
protocol = click.option(
    "--protocol",
    default="smoke",
    show_default=True,
    help="A built-in protocol (see bench ls protocols) or a TOML file.",
    shell_complete=completion.protocols,
)
settings = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one value of the protocol, e.g. --set epochs=3. Can be repeated.",
)
image_range = click.option(
    "--range",
    "image_range",
    metavar="LOW,HIGH",
    help="Range of the pixel values in datasets given by path, mapped to 0..255, e.g. --range 0,1.",
)
data_root = click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    help=f"Folder where datasets are looked for and downloaded to.  [default: ${VARIABLE}, or "
    "else the user's cache]",
)
device = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)
where = click.option(
    "--where",
    "conditions",
    multiple=True,
    metavar="COLUMN=VALUE,...",
    help="Keep only rows that have one of these values; '--where layer=' keeps rows without a "
    "layer. Words can have * and ?. Can be repeated: rows must then meet every condition.",
    shell_complete=completion.conditions,
)
out = click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Run directory, whose content is kept.  [default: runs/PROTOCOL]",
    shell_complete=completion.run_directories,
)
weights = click.option(
    "--weights",
    multiple=True,
    metavar="NAME=PATH",
    help="File of weights that a metric needs, e.g. --weights inception=FILE. Can be repeated.",
)
reference = click.option(
    "--reference",
    multiple=True,
    metavar="DIR | [EXTRACTOR=]FILE",
    help="DIR: reference whose trained extractors are used instead of training them, so that FAD "
    "is comparable with it. FILE: reference statistics (.npz with mu and sigma), which Fréchet "
    "distances are taken to. Can be repeated.",
    shell_complete=completion.run_directories,
)


metrics = click.option(
    "--metrics",
    default="all",
    show_default=True,
    help="Metrics to compute: comma-separated names, patterns such as 'fid*', or the presets all, "
    "fast and paper.",
    shell_complete=completion.names("metrics", *PRESETS),
)
skip = click.option(
    "--skip",
    default="",
    help="Metrics to leave out, given as --metrics is.",
    shell_complete=completion.names("metrics", *PRESETS),
)


def _forbid_downloads(ctx: click.Context, param: click.Parameter, given: bool) -> None:
    """Set the variable for this process and those that it starts."""
    if given:
        os.environ[OFFLINE_VARIABLE] = "1"


offline = click.option(
    "--offline",
    is_flag=True,
    expose_value=False,
    callback=_forbid_downloads,
    help=f"Download nothing, as with the environment variable {OFFLINE_VARIABLE}=1. What is not "
    "here is skipped.",
)


_RUN = (
    models,
    datasets,
    backends,
    protocol,
    settings,
    image_range,
    click.option("--seeds", help="Comma-separated whole numbers.  [default: the protocol's seeds]"),
    out,
    data_root,
    device,
    weights,
    reference,
    metrics,
    skip,
    offline,
    click.option(
        "--checkpoint-every",
        default="10min",
        show_default=True,
        metavar="INTERVAL",
        help="Interval between two checkpoints of a training: 30s, 10min, 1h, 2epochs, never.",
    ),
    click.option(
        "--time-limit",
        metavar="TIME",
        help="Stop after this time as Ctrl-C does, with exit code 75: 30s, 50min, 1.5h.",
    ),
    click.option(
        "--retry", type=click.Choice(["failed"]), help="Run only the cells that failed before."
    ),
    click.option(
        "--log",
        default="",
        metavar="NAME[,NAME]",
        help="Log the trainings with trackers (see bench ls trackers), e.g. --log tensorboard.",
        shell_complete=completion.names("trackers"),
    ),
    click.option("--strict", is_flag=True, help="Exit with code 1 if anything was skipped."),
    click.option("--dry-run", is_flag=True, help="Print the cells and their state; run nothing."),
)


def run(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options of a run: what to run, under which protocol, and where to write it."""
    for option in reversed(_RUN):
        command = option(command)
    return command


run_directories = click.argument(
    "directories",
    metavar="DIR...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    shell_complete=completion.run_directories,
)


def run_directory(name: str, metavar: str = "DIR") -> Callable[[Any], Any]:
    """Return a required argument that is the path of a run directory."""
    return click.argument(
        name,
        metavar=metavar,
        type=click.Path(path_type=Path),
        shell_complete=completion.run_directories,
    )
