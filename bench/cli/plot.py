"""``bench plot``: the figures of a run, and the rows that they show."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli import completion, options
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.report.plots.drawing import Drawing

FORMATS = ("png", "svg")
EXIT_NOTHING = 1


@click.command("plot")
@options.run_directory("run_directory")
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=completion.names("plots"))
@options.where
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write to. [DIR/plots]")
@click.option(
    "--format", "formats", type=click.Choice(FORMATS), multiple=True, default=FORMATS,
    show_default=True, help="Can be given twice; the CSV is always written.",
)  # fmt: skip
def command(
    run_directory: Path,
    names: tuple[str, ...],
    conditions: tuple[str, ...],
    out: Path | None,
    formats: tuple[str, ...],
) -> int:
    """Draw the plots of the run in DIR: all, or those with the NAMEs given.

    Writes NAME.png, NAME.svg and, with the rows that the plot shows, NAME.csv. A plot that cannot
    be drawn is reported with the reason; the exit code is 1 if none could be drawn.

    bench plot DIR samples --where backend=fused,torch --where dataset=mnist
    """
    from bench.report.plots.drawing import draw_plot, load_plots
    from bench.report.plots.plot import NotDrawnError
    from bench.report.run_reader import Run

    run = Run(run_directory, conditions)
    folder = out or run_directory / "plots"
    written = 0
    for name, plot in load_plots(names).items():
        try:
            with closing(draw_plot(plot, run)) as drawing:
                contents = _files(drawing, formats)
        except NotDrawnError as error:
            click.echo(f"{name}: not drawn: {error}")
            continue
        _write(name, contents, folder)
        written += 1
    for reason in run.unreadable.values():
        click.echo(f"left out: {reason}")
    return 0 if written else EXIT_NOTHING


def _files(drawing: "Drawing", formats: tuple[str, ...]) -> dict[str, bytes]:
    """Return the content of each file of a plot, by extension."""
    contents = {extension: drawing.render(extension) for extension in dict.fromkeys(formats)}
    return {**contents, "csv": drawing.csv()}


def _write(name: str, contents: dict[str, bytes], folder: Path) -> None:
    from bench.system.files import atomic

    paths = {folder / f"{name}.{extension}": content for extension, content in contents.items()}
    try:
        for path, content in paths.items():
            with atomic(path) as file:
                file.write(content)
    except OSError as error:
        raise BenchError(
            f"The plots cannot be written to {folder}: {error.strerror}. Choose another with --out."
        ) from error
    click.echo(f"{name}: {', '.join(map(str, paths))}")
