"""``bench check``: whether a plug-in keeps its contract."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from bench.cli import EXIT_FAILED, completion, options
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.testing import Check, CheckResult

KINDS = ("model", "backend", "metric", "dataset")


def _complete_name(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    kind = ctx.params.get("kind")
    return completion.names(f"{kind}s")(ctx, param, incomplete) if kind in KINDS else []


@click.command("check")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name", shell_complete=_complete_name)
@click.option(
    "--backend",
    help="Backend of a spiking model.  [default: the equations in plain PyTorch]",
    shell_complete=completion.names("backends"),
)
@options.settings
@options.data_root
@options.device
def command(
    kind: str,
    name: str,
    backend: str | None,
    settings: Sequence[str],
    data_root: Path | None,
    device: str,
) -> int:
    """Check the plug-in NAME against its contract, and say what is wrong and how to mend it.

    A model is built on small random images: shapes, ranges, random draws, state, training and
    resumption. Spikes and gradients of a backend are compared with the equations: it is exact,
    within rounding, or another neuron. A metric is shown the same images in batches of several
    sizes; a dataset is loaded twice. Exit codes: 0 all passed, 1 a check failed, 2 a mistake.
    """
    for option, given, owner in (
        ("--backend", backend, "model"),
        ("--set", settings, "model"),
        ("--data-root", data_root, "dataset"),
    ):
        if given and kind != owner:
            raise BenchError(f"{option} belongs to bench check {owner}, not to bench check {kind}.")
    from bench import testing

    checks: dict[str, Callable[[], list[Check]]] = {
        "model": lambda: testing.model_checks(
            name, backend=backend, settings=settings, device=device
        ),
        "backend": lambda: testing.backend_checks(name, device),
        "metric": lambda: testing.metric_checks(name, device),
        "dataset": lambda: testing.dataset_checks(name, data_root),
    }
    results = [check.result() for check in checks[kind]()]
    _print(results)
    if kind == "backend":
        click.echo(f"Verdict: {testing.verdict(results).replace('_', ' ')}.")
    return EXIT_FAILED if _count(results, "failed") else 0


def _print(results: Sequence["CheckResult"]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("check", "result", "why"):
        table.add_column(heading, overflow="fold")
    for result in results:
        word = {"not applicable": "n/a"}.get(result.outcome, result.outcome)
        table.add_row(result.check, word, result.message)
    Console().print(table, markup=False, highlight=False)
    numbers = [
        f"{count} {outcome}"
        for outcome in ("passed", "failed", "not applicable")
        if (count := _count(results, outcome))
    ]
    click.echo(f"{', '.join(numbers)}.")


def _count(results: Sequence["CheckResult"], outcome: str) -> int:
    return sum(result.outcome == outcome for result in results)
