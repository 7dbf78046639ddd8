"""Print a comparison to the terminal."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.comparison.compare import Comparison
from bench.comparison.output.sections import Section, counts_line, sections, verdict_line

STYLES = {0: "bold green", 1: "bold red", 3: "bold yellow"}


def print_comparison(comparison: Comparison, console: Console, show_all: bool = False) -> None:
    """Print the verdict, what is not the same, and the number of observations per verdict.

    Args:
        comparison: the comparison to print.
        console: where to print it.
        show_all: True to list better, new and same observations too.
    """
    console.print(verdict_line(comparison), style=STYLES[comparison.exit_code], highlight=False)
    for section in sections(comparison, show_all):
        console.print(f"\n{section.title}", style="bold", highlight=False)
        console.print(_table(section))
    for note in comparison.notes:
        console.print(Text(f"Note: {note}"))
    console.print(Text(counts_line(comparison)))


def _table(section: Section) -> Table:
    valued = any(line.reference or line.here for line in section.lines)
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("cell", overflow="fold")
    table.add_column("observation", overflow="fold")
    if valued:
        table.add_column("reference", justify="right")
        table.add_column("here", justify="right")
    table.add_column("why", overflow="fold")
    for line in section.lines:
        values = (line.reference, line.here) if valued else ()
        table.add_row(*map(Text, (line.cell, line.observation, *values, line.reason)))
    return table
