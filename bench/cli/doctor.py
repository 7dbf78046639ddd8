"""``bench doctor``: what would run here, and on what; or what is wrong with a run directory."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import click

from bench.cli import EXIT_FAILED


@click.command("doctor")
@click.argument("directory", metavar="[DIR]", type=click.Path(path_type=Path), required=False)
@click.option("--data-root", type=click.Path(path_type=Path), help="Where datasets are looked for.")
def command(directory: Path | None, data_root: Path | None) -> int:
    """Show versions, devices, neuron implementations, datasets and weights.

    With DIR, a run directory: check it for damage instead, and say what to do. Exit codes: 0 no
    damage, 1 damage.
    """
    return _show_machine(data_root) if directory is None else _show_findings(directory)


def _show_findings(directory: Path) -> int:
    from rich.console import Console
    from rich.table import Table

    from bench.store.inspection import inspect

    findings = inspect(directory)
    console = Console()
    if not findings:
        click.echo(f"{directory}: nothing is wrong.")
        return 0
    table = Table(title=str(directory), title_justify="left")
    for heading in ("where", "what", "what to do"):
        table.add_column(heading, overflow="fold")
    for found in findings:
        table.add_row(found.where, found.what, found.remedy)
    console.print(table, markup=False)
    return EXIT_FAILED if any(found.damage for found in findings) else 0


def _show_machine(data_root: Path | None) -> int:
    from rich.console import Console
    from rich.table import Table

    from bench.system.paths import data_root as checked

    root = checked(data_root)
    console = Console()
    sections = {
        "Versions": _versions(),
        "Devices": _devices(),
        "Which LIF implementation runs": _implementations(),
        f"Datasets under {root}": _datasets(root),
        "Weights": _weights(),
    }
    for title, lines in sections.items():
        table = Table(title=title, title_justify="left", show_header=False)
        table.add_column(overflow="fold")
        table.add_column(overflow="fold")
        for name, value in lines:
            table.add_row(name, value)
        console.print(table, markup=False)
    return 0


def _versions() -> Iterator[tuple[str, str]]:
    from bench.system.environment import environment, library_versions

    facts = environment()
    yield "spikegen-bench", f"{facts['version']} (commit {facts['git_commit'] or 'unknown'})"
    yield "python", f"{facts['python']} on {facts['platform']}"
    yield from library_versions().items()


def _devices() -> Iterator[tuple[str, str]]:
    import torch

    from bench.system.environment import environment

    facts = environment()
    yield "cpu", f"{facts['processor']}, {facts['torch_threads']} threads"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if not torch.cuda.is_available():
        yield "cuda", "none that PyTorch can use"


def _implementations() -> Iterator[tuple[str, str]]:
    from bench.errors import BenchError
    from bench.registry import backends
    from bench.system.devices import resolve_device

    device = resolve_device("auto")
    for name in backends.names():
        try:
            yield f"{name} on {device.type}", backends.load(name)().implementation(device)
        except (BenchError, RuntimeError) as error:
            yield f"{name} on {device.type}", f"cannot run: {error}"


def _datasets(root: Path) -> Iterator[tuple[str, str]]:
    from bench.datasets.resolve import open_dataset
    from bench.registry import datasets

    for name in datasets.names():
        missing = open_dataset(name, root).missing()
        yield name, f"not here: {missing}" if missing else "here"


def _weights() -> Iterator[tuple[str, str]]:
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    name = Path(urlparse(URL_INCEPTION_V3).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    here = "here" if path.exists() else "not here"
    yield "Inception v3 (torch-fidelity)", f"{here}: {path}; no metric of this version needs it"
