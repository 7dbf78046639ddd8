"""The runs of a site: their names, rows and records, and all of them as one run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.report.page.provenance import Records, read_records
from bench.report.run_reader import Run
from bench.report.site.distinct_names import run_names
from bench.store.aggregation import of_models
from bench.store.schema import Headline


@dataclass(frozen=True)
class SiteRun:
    """A run of a site.

    Attributes:
        name: name of the run, unique on the site.
        run: the run.
        records: commands and cells of the run.
    """

    name: str
    run: Run
    records: Records

    @property
    def models(self) -> list[str]:
        """The names of the models, in the order of the rows."""
        return [str(name) for name in of_models(self.run.rows)["model"].unique()]

    def versions(self, rows: pd.DataFrame) -> list[str]:
        """Return the versions of the suite that computed rows, or else of the commands for them.

        Args:
            rows: rows of this run.
        """
        versions = set(map(str, rows["version"].dropna()))
        if not versions:
            commands = self.records.about(set(rows["cell_key"])).commands
            known = ((each.get("environment") or {}).get("version") for each in commands)
            versions = {str(version) for version in known if version}
        return sorted(versions)


def read_runs(paths: Sequence[Path]) -> tuple[list[SiteRun], list[Path]]:
    """Read run directories.

    Args:
        paths: run directories or references.

    Returns:
        The runs, and the directories that are left out because an earlier one is the same or has
        the same rows.

    Raises:
        BenchError: a directory is not a run directory, or cannot be read.
    """
    chosen: dict[Path, Run] = {}
    left_out = []
    for path in paths:
        run = Run(path)
        rows = run.rows
        known = path.resolve() in {each.resolve() for each in chosen}
        if known or any(_same_rows(rows, other.rows) for other in chosen.values()):
            left_out.append(path)
        else:
            chosen[path] = run
    runs = [
        SiteRun(name, run, read_records(path))
        for name, (path, run) in zip(run_names([*chosen]), chosen.items(), strict=True)
    ]
    return runs, left_out


def joint_run(runs: Sequence[SiteRun]) -> Run:
    """Return one run with the rows of all runs, whose names are in the column ``run``.

    The declarations of a metric are those in the last run that has it.
    """
    joint = Run(runs[0].run.path)
    tables = [each.run.rows.assign(run=each.name) for each in runs]
    filled = [table for table in tables if not table.empty]
    joint.rows = pd.concat(filled, ignore_index=True) if filled else tables[0]
    joint.declarations = {
        name: known for each in runs for name, known in each.run.declarations.items()
    }
    return joint


def main_metrics(runs: Sequence[SiteRun]) -> dict[str, Headline]:
    """Return the main metrics of all runs, in the order in which tables show them."""
    known = {name: each for run in runs for name, each in run.run.headlines("report").items()}
    return dict(sorted(known.items(), key=lambda item: item[1].rank))


def _same_rows(rows: pd.DataFrame, others: pd.DataFrame) -> bool:
    return not rows.empty and rows.equals(others)
