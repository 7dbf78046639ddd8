"""The command line ``bench``: one module per command, imported only when the command is used."""

import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from bench.errors import BenchError, DatasetWarning, OutputError
from bench.system.signals import Interrupted, TimeLimitReached

VERBS = {
    "run": "Train and evaluate models on datasets.",
    "score": "Score images that exist, in a folder or a file.",
    "sample": "Write samples of a trained model.",
    "stats": "Write reference statistics: mean and covariance of features.",
    "cluster": "Train and evaluate models on a Ray cluster.",
    "results": "List the rows of a run, filtered and sorted.",
    "merge": "Write the cells of several runs into one run directory.",
    "report": "Write the report of a run, or of several: one HTML file, or Markdown.",
    "site": "Write a leaderboard of runs as a folder of static pages.",
    "plot": "Draw the plots of a run: PNG, SVG, and their data as CSV.",
    "table": "Show a paper's table with the results of a run next to the published numbers.",
    "compare": "Compare a run with a reference: is any metric worse?",
    "reference": "Write the reference that runs are compared with.",
    "profile": "Time models: images per second, time per layer, memory.",
    "check": "Check a model, backend, metric or dataset of your own.",
    "ls": "List the installed models, backends, datasets, metrics and so on.",
    "data": "Show or download datasets.",
    "weights": "Show or download the networks that metrics need.",
    "doctor": "Show what works on this machine, or check a run directory for damage.",
}
EXIT_FAILED = 1
EXIT_USAGE = 2
# EX_TEMPFAIL of sysexits.h: the same command again can succeed.
EXIT_TIME_LIMIT = 75
EXIT_SIGNAL = 128
# The variable in which shells ask for completions.
COMPLETION = "_BENCH_COMPLETE"


class _LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the name of every command."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"bench.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in the help text without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command without importing any."""
        commands = [
            CompletionItem(name, help=summary)
            for name, summary in VERBS.items()
            if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="spikegen-bench")
def cli() -> None:
    """Benchmark spiking generative models under one set of rules.

    Without options, `bench run` trains and evaluates every built-in model on a small dataset. It
    needs no network and takes minutes.
    """


def main() -> None:
    """Run the command line. A mistake in a command becomes one line and exit code 2."""
    if COMPLETION in os.environ:
        from bench.cli import shells

        shells.register()
    try:
        with _plain_dataset_warnings():
            code = cli.main(prog_name="bench", complete_var=COMPLETION, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        click.echo(f"Error: {error.format_message()}", err=True)
        sys.exit(EXIT_USAGE)
    except OutputError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_FAILED)
    except BenchError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt) as error:
        # Click raises Abort from the exception that interrupted it.
        _exit_interrupted(error.__cause__)
    sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def _plain_dataset_warnings() -> Iterator[None]:
    """Print warnings about datasets as one line on standard error, without the line of code."""
    with warnings.catch_warnings():
        show_others = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, DatasetWarning):
                click.echo(f"Warning: {message}", err=True)
            else:
                show_others(message, category, *where, **more)

        warnings.simplefilter("always", DatasetWarning)
        warnings.showwarning = show
        yield


def _exit_interrupted(cause: BaseException | None) -> NoReturn:
    """Report in one line what stopped the run, and exit."""
    stop = cause if isinstance(cause, Interrupted) else Interrupted()
    code, what = EXIT_SIGNAL + stop.signum, "Interrupted."
    if isinstance(stop, TimeLimitReached):
        code, what = EXIT_TIME_LIMIT, "The time limit is reached."
    saved = f" A checkpoint is at {stop.saved}." if stop.saved else ""
    click.echo(
        f"{what}{saved} Finished cells are kept; the same command again runs the rest.", err=True
    )
    sys.exit(code)
