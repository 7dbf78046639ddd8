"""``bench data``: which datasets are here, and how to get the others."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli import completion, options
from bench.errors import BenchError, DataUnavailableError

if TYPE_CHECKING:
    from bench.datasets.dataset import Dataset


@click.group("data")
def command() -> None:
    """Show or download datasets."""


@command.command()
@options.data_root
def status(data_root: Path | None) -> None:
    """Show which datasets are under the data root, and which files the others lack."""
    from bench.datasets.resolve import open_dataset
    from bench.registry import datasets
    from bench.system.paths import data_root as checked

    root = checked(data_root)
    click.echo(f"Datasets under {root}")
    for name in datasets.names():
        dataset = open_dataset(name, root)
        click.echo(f"\n{name}")
        for label, value in [*_state(dataset), ("source", dataset.source)]:
            click.echo(f"  {label:<12}{value}")
        click.echo(f"  {'licence':<12}{dataset.licence}")


def _state(dataset: "Dataset") -> list[tuple[str, str]]:
    try:
        missing = dataset.missing()
        if missing:
            return [("not here", missing)]
        info = dataset.info()
    except DataUnavailableError as error:
        return [("unusable", str(error))]
    shape = "x".join("?" if size is None else str(size) for size in info.shape)
    return [
        ("here", info.variant),
        ("images", f"{info.train_size:,} train, {info.test_size:,} test, {shape}"),
        ("fingerprint", info.fingerprint),
    ]


@command.command()
@click.argument(
    "names", nargs=-1, required=True, shell_complete=completion.names("datasets", "all")
)
@options.data_root
def fetch(names: tuple[str, ...], data_root: Path | None) -> None:
    """Download the datasets NAMES, or all, into the data root and check their hashes."""
    from bench.datasets.resolve import open_dataset
    from bench.registry import datasets
    from bench.system.paths import data_root as checked

    root = checked(data_root)
    wanted = datasets.names() if "all" in names else list(dict.fromkeys(names))
    unavailable = []
    for dataset in [open_dataset(name, root) for name in wanted]:
        try:
            if dataset.missing():
                click.echo(f"{dataset.name}: downloading from {dataset.source}")
                dataset.fetch()
            click.echo(f"{dataset.name}: here, {_sizes(dataset)}")
        except DataUnavailableError as error:
            unavailable.append(f"{dataset.name}: {error}")
    if unavailable:
        raise BenchError("; ".join(unavailable))


def _sizes(dataset: "Dataset") -> str:
    info = dataset.info()
    return f"{info.train_size:,} training and {info.test_size:,} test images ({info.variant})"
