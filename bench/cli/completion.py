"""Shell completion of the names that options and arguments take, without importing any plug-in.

Click calls these functions for the candidates; `bench.cli.shells` fits its scripts to lists.
"""

import os
from collections.abc import Callable, Iterable, Iterator

import click
from click.shell_completion import CompletionItem

from bench.registry import registries

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

# The file that makes a folder a run directory; `bench.store` owns it but imports pandas.
RUN_FILE = "run.json"
SEARCHED_LEVELS = 3
SEARCHED_FOLDERS = 1000
# Columns of the table of rows whose values are names of plug-ins.
COLUMNS = ("model", "backend", "dataset", "metric")


def names(kind: str, *others: str) -> Complete:
    """Complete a comma-separated list of the names of one kind of plug-in.

    Args:
        kind: a kind of plug-in in the plural, such as ``models``.
        others: further words that the list can hold, such as ``all``.
    """

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return _listed([*registries()[kind].names(), *others], incomplete)

    return complete


def conditions(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete ``COLUMN=NAME,...`` for the columns that hold names of plug-ins.

    Args:
        ctx: context of the command, unused.
        param: option to complete, unused.
        incomplete: the text typed so far.
    """
    column, equals, listed = incomplete.partition("=")
    if equals:
        chosen = [name for name in COLUMNS if name == column]
    else:
        chosen = [name for name in COLUMNS if name.startswith(column)]
    return [
        CompletionItem(f"{name}={item.value}")
        for name in chosen
        for item in _listed(registries()[f"{name}s"].names(), listed)
    ]


def protocols(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a built-in protocol, or else the path of a file.

    Args:
        ctx: context of the command, unused.
        param: option to complete, unused.
        incomplete: the text typed so far.
    """
    from bench.protocol import builtin_protocols

    matching = [name for name in builtin_protocols() if name.startswith(incomplete)]
    return [CompletionItem(name) for name in matching] or [CompletionItem(incomplete, type="file")]


def tables(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a paper's table.

    Args:
        ctx: context of the command, unused.
        param: argument to complete, unused.
        incomplete: the text typed so far.
    """
    from bench.report.papers.published import published_tables

    return [CompletionItem(name) for name in published_tables() if name.startswith(incomplete)]


def run_directories(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the path of a run directory a few levels down, or else of any folder.

    Args:
        ctx: context of the command, unused.
        param: argument to complete, unused.
        incomplete: the text typed so far.
    """
    folder = os.path.dirname(incomplete)
    paths = (os.path.join(folder, path) for path in _runs_below(folder or "."))
    runs = sorted(path for path in paths if path.startswith(incomplete))
    return [CompletionItem(path) for path in runs] or [CompletionItem(incomplete, type="dir")]


def _runs_below(folder: str) -> Iterator[str]:
    """Yield the run directories below a folder, relative to it, nearest levels first."""
    top = os.path.expanduser(folder)
    level = [""]
    searched = 0
    for _ in range(SEARCHED_LEVELS):
        below = []
        for path in level:
            searched += 1
            if searched > SEARCHED_FOLDERS:
                return
            below += [os.path.join(path, name) for name in _subfolders(os.path.join(top, path))]
        runs = [path for path in below if os.path.isfile(os.path.join(top, path, RUN_FILE))]
        yield from runs
        level = sorted(set(below) - set(runs))


def _subfolders(folder: str) -> list[str]:
    """Return the names of the folders in a folder, without hidden and unreadable ones."""
    try:
        with os.scandir(folder) as entries:
            return [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]
    except OSError:
        return []


def _listed(known: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Complete the last name of a comma-separated list, without the names listed before it."""
    before, comma, begun = incomplete.rpartition(",")
    left = [name for name in known if name.startswith(begun) and name not in before.split(",")]
    return [CompletionItem(f"{before}{comma}{name}") for name in left]
