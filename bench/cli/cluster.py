"""``bench cluster``: runs on a Ray cluster."""

from typing import Any

import click

from bench.cli import options
from bench.cli.run import run_request


@click.group("cluster")
def command() -> None:
    """Run cells on a Ray cluster."""


@command.command("run", short_help="Train and evaluate models on a cluster.")
@options.run
@click.option(
    "--address",
    help="Address of a running Ray cluster.  [default: start one on this machine]",
)
@click.option(
    "--cpus-per-cell",
    type=click.IntRange(min=1),
    help="CPUs per cell.  [default: the protocol's threads]",
)
@click.option(
    "--gpus-per-cell",
    type=click.FloatRange(min=0),
    help="GPUs per cell. With a fraction, cells share a GPU.  [default: 1 if the cluster has any]",
)
def run(**given: Any) -> int:
    """Train and evaluate models on a cluster, as `bench run` does on one machine.

    The command needs the extra `cluster` (pip install 'spikegen-bench[cluster]') and runs on a node
    of the cluster. Ray runs as many cells at a time as fit. The exit codes of `bench run` apply.
    """
    return run_request(executor="ray", **given)
