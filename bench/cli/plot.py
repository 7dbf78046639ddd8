"""``bench plot``: the figures of a run, and the data behind them."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli import options
from bench.errors import BenchError, UnknownNameError

if TYPE_CHECKING:
    from bench.report.plots import Plot
    from bench.report.run_reader import Run

FORMATS = ("png", "svg")
EXIT_NOTHING = 1


@click.command("plot")
@click.argument("run_directory", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("names", metavar="[NAME]...", nargs=-1)
@options.where
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write to. [DIR/plots]")
@click.option(
    "--format", "formats", type=click.Choice(FORMATS), multiple=True, default=FORMATS,
    show_default=True, help="May be given twice; the CSV is always written.",
)  # fmt: skip
def command(
    run_directory: Path,
    names: tuple[str, ...],
    conditions: tuple[str, ...],
    out: Path | None,
    formats: tuple[str, ...],
) -> int:
    """Draw the plots of the run in DIR, all or those NAMED.

    Each becomes NAME.png, NAME.svg and NAME.csv, the data behind it. A plot that cannot be drawn is
    told with its reason; the exit code is 1 if none could be.

    bench plot DIR samples --where backend=fused,torch --where dataset=mnist
    """
    from bench.report.plots import PLOTS
    from bench.report.run_reader import Run

    run = Run(run_directory, conditions)
    known = {plot.name: plot for plot in PLOTS}
    for name in names:
        if name not in known:
            raise UnknownNameError("plot", name, known)
    chosen = [known[name] for name in dict.fromkeys(names)] or list(PLOTS)
    folder = out or run_directory / "plots"
    drawn = [_write(plot, run, folder, dict.fromkeys(formats)) for plot in chosen]
    for why in run.unreadable.values():
        click.echo(f"left out: {why}")
    return 0 if any(drawn) else EXIT_NOTHING


def _write(plot: "Plot", run: "Run", folder: Path, formats: Iterable[str]) -> bool:
    """Write one plot; False if it cannot be drawn."""
    from bench.report.plots import render

    data = plot.data(run)
    reason = plot.why(data, run)
    if reason:
        click.echo(f"{plot.name}: not drawn: {reason}")
        return False
    figure = plot.draw(data, run)
    contents = {file_format: render(figure, file_format) for file_format in formats}
    contents["csv"] = data.to_csv(index=False).encode()
    _save(plot.name, contents, folder)
    click.echo(f"{plot.name}: {', '.join(str(folder / f'{plot.name}.{e}') for e in contents)}")
    return True


def _save(name: str, contents: dict[str, bytes], folder: Path) -> None:
    from bench.system.files import atomic

    try:
        for extension, content in contents.items():
            with atomic(folder / f"{name}.{extension}") as file:
                file.write(content)
    except OSError as error:
        raise BenchError(
            f"The plots cannot be written to {folder}: {error.strerror}. Choose another with --out."
        ) from error
