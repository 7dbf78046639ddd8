"""``bench doctor``: what works on this machine, or what is damaged in a run directory."""

import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from bench.cli import EXIT_FAILED, completion, options
from bench.cli.weights import INDENT, entries
from bench.errors import BenchError, SkippedError, one_line


@click.command("doctor")
@click.argument(
    "directory",
    metavar="[DIR]",
    type=click.Path(path_type=Path),
    required=False,
    shell_complete=completion.run_directories,
)
@options.data_root
def command(directory: Path | None, data_root: Path | None) -> int:
    """Show versions, devices, backends, datasets and weights, and how to get what is missing.

    With the run directory DIR, check its files for damage instead, and say what to do. Exit codes:
    0 no damage, 1 damage.
    """
    return _check_machine(data_root) if directory is None else _check_run(directory)


def _check_run(directory: Path) -> int:
    from rich.console import Console
    from rich.table import Table

    from bench.store.inspection import inspect

    findings = inspect(directory)
    if not findings:
        click.echo(f"{directory}: no damage found.")
        return 0
    table = Table(title=str(directory), title_justify="left")
    for heading in ("where", "what", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        table.add_row(finding.where, finding.what, finding.remedy)
    Console().print(table, markup=False)
    return EXIT_FAILED if any(finding.damage for finding in findings) else 0


def _check_machine(data_root: Path | None) -> int:
    from bench.system.paths import Resources, cache_folder
    from bench.system.paths import data_root as checked

    resources = Resources(checked(data_root), {}, cache_folder())
    _print("Versions", _columns(_versions()))
    _print("Devices", _columns(_devices()))
    _print("Processes", _columns(_processes()))
    _print("Backends", _backends())
    _print(f"Datasets: looked for under {resources.data_root}", _datasets(resources.data_root))
    _print("Weights: files of networks that metrics need", entries(resources))
    _print("Plug-ins of other packages", _plugins())
    return 0


def _print(title: str, lines: Iterable[str]) -> None:
    """Print a section line by line, as soon as each line is known."""
    click.echo(title)
    for line in lines:
        click.echo(f"  {line}")
    click.echo()


def _columns(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, value in pairs:
        yield f"{name:<16}{value}"


def _versions() -> Iterator[tuple[str, str]]:
    from bench.system.environment import git_commit, library_versions, suite_version

    yield "spikegen-bench", f"{suite_version()} (commit {git_commit() or 'unknown'})"
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    yield from library_versions().items()


def _devices() -> Iterator[tuple[str, str]]:
    import torch

    from bench.system.devices import why_no_gpu
    from bench.system.environment import environment

    yield "cpu", str(environment()["processor"])
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if reason := why_no_gpu():
        yield "cuda", f"no GPU. {reason}."


def _processes() -> Iterator[tuple[str, str]]:
    """Yield the CPUs that a run can use, and what it does with them."""
    from bench.protocol import load_protocol
    from bench.system.devices import resolve_devices
    from bench.system.threads import cells_at_a_time, system_load, usable_cpus

    usable, load = usable_cpus(), system_load()
    yield "cores", f"{os.cpu_count()}, of which this process can use {usable} (affinity and quota)"
    if load is not None:
        busy = ". The machine is busy: a run takes longer." if load > usable / 2 else ""
        yield "load", f"{load:.1f} processes, mean of the last minute{busy}"
    threads = load_protocol("smoke").threads
    yield "threads", f"{threads} per cell, under the protocols that set no other number"
    cells = cells_at_a_time(resolve_devices("auto"), threads)
    yield "cells", f"{cells} at a time; `bench run --jobs N` chooses another number"


def _backends() -> Iterator[str]:
    from bench.registry import backends
    from bench.system.devices import resolve_device

    device = resolve_device("auto")
    for name in backends.names():
        try:
            yield f"{name}: {backends.load(name)().implementation(device)}, on {device.type}."
        except Exception as error:  # plug-ins can raise any
            known = isinstance(error, BenchError | RuntimeError | SkippedError)
            reason = str(error) if known else one_line(error)
            yield f"{name}: cannot run on {device.type}: {reason}"


def _datasets(root: Path) -> Iterator[str]:
    from bench.datasets import dataset_contract
    from bench.datasets.resolve import open_dataset
    from bench.registry import datasets

    for name in datasets.names():
        try:
            missing = dataset_contract.missing(open_dataset(name, root))
        except BenchError as error:
            yield f"{name}: cannot be used: {error}"
            continue
        state = f"not here, {missing}.{INDENT}`bench data fetch {name}` downloads it."
        yield f"{name}: {state if missing else 'here.'}"


def _plugins() -> Iterator[str]:
    """Yield whether each plug-in of another package can be used."""
    from bench.registry import registries

    external = [
        (known, entry)
        for known in registries().values()
        for entry in known.entries()
        if entry.external
    ]
    if not external:
        yield "none."
    for known, entry in external:
        error = known.error(entry.name)
        yield f"{known.kind} {entry.name} ({entry.package}): {error or 'can be used.'}"
