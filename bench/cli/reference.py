"""``bench reference``: the reference runs that ``bench compare`` compares with."""

from pathlib import Path

import click

from bench.cli import options


@click.group("reference")
def command() -> None:
    """Write the reference that `bench compare` compares runs with."""


@command.command("update")
@options.run_directory("run", "RUN")
@options.run_directory("reference", "REFERENCE")
@click.option("--keep", is_flag=True, help="Keep the cells of REFERENCE that RUN lacks.")
@click.option(
    "--allow-failed", is_flag=True, help="Accept a run with failed rows and copy these rows too."
)
def update(run: Path, reference: Path, keep: bool, allow_failed: bool) -> None:
    """Replace the folder REFERENCE with the rows of RUN.

    RUN is a run directory. REFERENCE is created if it does not exist. Other files in it, such as a
    README, stay.
    """
    from bench.comparison.reference_update import update_reference

    for path in update_reference(run, reference, allow_failed=allow_failed, keep=keep):
        click.echo(f"Written: {path} ({path.stat().st_size / 1024:,.0f} KiB)")
