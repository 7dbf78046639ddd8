"""Write a paper's table for the terminal, within 80 columns if names allow."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.report.papers.paper_view import View

HEADINGS = {
    "published": "paper",
    "backend": "backend",
    "seeds": "seeds",
    "ours": "ours",
    "done right": "done\nright",
    "relative difference": "rel.\ndiff.",
    "same protocol": "same\nprot.",
    "notes": "notes",
}
LEFT = {"backend", "notes"}
SHORT = {
    "reconstruction_loss": "recon.loss",
    "inception_score": "IS",
    "fid": "FID",
    "fad": "FAD",
}


def terminal(shown: View) -> str:
    """Return the title, the legend, a tree of datasets, models and metrics, and the notes."""
    console = Console(color_system=None, emoji=False, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(Text(shown.title))
        console.print(Text(shown.legend), end="\n\n")
        console.print(_grid(shown))
        console.print()
        for number, note in enumerate(shown.notes, start=1):
            console.print(_hanging(str(number), note.text))
            if note.command:
                console.print(Text(f"     {note.command}"), soft_wrap=True)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _grid(shown: View) -> Table:
    columns = [name for name in HEADINGS if name in shown.cells]
    grid = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    grid.add_column("", overflow="fold")
    for name in columns:
        grid.add_column(
            HEADINGS[name],
            justify="left" if name in LEFT else "right",
            overflow="fold",
            vertical="bottom",
        )
    above: tuple[str, ...] = ()
    for row in shown.cells.to_dict("records"):
        place = (row["dataset"], row["model"], row["metric"])
        for depth in range(2):
            if place[: depth + 1] != above[: depth + 1]:
                grid.add_row(Text(" " * depth + place[depth]))
        label = "" if place == above else f"  {SHORT.get(row['metric'], row['metric'])}"
        grid.add_row(Text(label), *(Text(row[name]) for name in columns))
        above = place
    return grid


def _hanging(label: str, text: str) -> Table:
    line = Table.grid(padding=(0, 1))
    line.add_column(width=4, justify="right")
    line.add_column(overflow="fold")
    line.add_row(Text(label), Text(text))
    return line
