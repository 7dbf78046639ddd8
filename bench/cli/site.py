"""``bench site``: runs as a static leaderboard."""

from pathlib import Path

import click

from bench.cli import options


@click.command("site")
@options.run_directories
@click.option(
    "--out",
    default="public",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder to write: missing, empty, or a site of an earlier call, which is replaced.",
)
def command(directories: tuple[Path, ...], out: Path) -> None:
    """Write a leaderboard of the run directories DIR... as a folder of static pages.

    The first page has a table of models for each protocol and dataset; each model has a page with
    its settings, numbers, pictures and the command that makes it again. leaderboard.json has the
    same numbers for programs. The pages need no network and no server.
    """
    from bench.report.site.write_site import write_site

    site = write_site(directories, out)
    for path in site.left_out:
        click.echo(f"left out: {path} has the same rows as an earlier directory", err=True)
    runs = f"{len(site.runs)} run{'s' if len(site.runs) > 1 else ''}"
    click.echo(f"Site: {site.index} ({site.models} models of {runs})")
