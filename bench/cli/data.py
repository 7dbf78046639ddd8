"""``bench data``: which datasets are here, and how to get the others."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli import completion, options
from bench.errors import BenchError, DataUnavailableError, UnknownNameError

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
        click.echo(f"\n{name}")
        try:
            dataset = open_dataset(name, root)
        except BenchError as error:
            click.echo(f"  {'unusable':<12}{error}")
            continue
        for label, value in [*_state(dataset), ("source", dataset.source)]:
            click.echo(f"  {label:<12}{value}")
        click.echo(f"  {'licence':<12}{dataset.licence}")


def _state(dataset: "Dataset") -> list[tuple[str, str]]:
    from bench.datasets import dataset_contract

    try:
        missing = dataset_contract.missing(dataset)
        if missing:
            return [("not here", missing)]
        info = dataset_contract.describe(dataset)
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
    from bench.registry import datasets
    from bench.system.paths import data_root as checked

    root = checked(data_root)
    wanted = datasets.names() if "all" in names else list(dict.fromkeys(names))
    for name in wanted:
        if name not in datasets:
            raise UnknownNameError("dataset", name, datasets.names())
    unavailable = []
    for name in wanted:
        try:
            _fetch(name, root)
        except BenchError as error:
            unavailable.append(f"{name}: {error}")
    if unavailable:
        raise BenchError("; ".join(unavailable))


def _fetch(name: str, root: Path) -> None:
    from bench.datasets import dataset_contract
    from bench.datasets.resolve import open_dataset

    dataset = open_dataset(name, root)
    if dataset_contract.missing(dataset):
        click.echo(f"{name}: downloading from {dataset.source}")
        dataset_contract.fetch(dataset)
    click.echo(f"{name}: here, {_sizes(dataset)}")


def _sizes(dataset: "Dataset") -> str:
    from bench.datasets import dataset_contract

    info = dataset_contract.describe(dataset)
    return f"{info.train_size:,} training and {info.test_size:,} test images ({info.variant})"
