"""The command line: ``bench VERB``, one file a verb, each imported only when it is used."""

import importlib
import sys

import click

from bench.errors import BenchError, OutputError
from bench.system.signals import Interrupted

VERBS = {
    "run": "Train and score a selection of models on datasets.",
    "ls": "List models, backends, datasets, metrics, protocols, or the results of a run.",
    "profile": "Time models: images a second, time by layer, memory.",
    "report": "Write the report of a run: one HTML file, or Markdown.",
    "plot": "Draw the plots of a run: PNG, SVG, and the data behind them as CSV.",
    "table": "Show a paper's table with ours beside each published number.",
    "compare": "Compare a run with a reference: is any metric worse?",
    "data": "Show or fetch datasets.",
    "doctor": "Show what would run here, and on what; or check a run directory for damage.",
}
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SIGNAL = 128


class _LazyGroup(click.Group):
    """Knows the verbs by name; imports one when it is called or its help is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"bench.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="spikegen-bench")
def cli() -> None:
    """One fair benchmark for spiking generative models.

    `bench run` alone trains and scores every built-in model on a small dataset that needs no
    network, in minutes.
    """


def main() -> None:
    """Run the command line; a mistake in what was asked is one line and exit code 2."""
    try:
        code = cli.main(prog_name="bench", standalone_mode=False)
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
        # Click wraps what it was interrupted by.
        stop = error.__cause__ if isinstance(error.__cause__, Interrupted) else Interrupted()
        saved = f" A checkpoint is at {stop.saved}." if stop.saved else ""
        click.echo(
            f"Interrupted.{saved} Finished cells are kept; the same command again does the rest.",
            err=True,
        )
        sys.exit(EXIT_SIGNAL + stop.number)
    sys.exit(code if isinstance(code, int) else 0)
