"""The page of a model of a run: its settings, numbers, pictures, curves, origin and command."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from bench.protocol import UNHASHED
from bench.report.page import outcomes
from bench.report.page.comparability import ComparisonWarning, comparison_warnings
from bench.report.page.figures import Drawn, File, Grids, drawn, grids
from bench.report.page.measurement_tables import measurement_tables
from bench.report.page.provenance import Provenance, by_setting, flattened, provenance
from bench.report.page.sortable_table import SortableTable
from bench.report.page.write import long_form, notice
from bench.report.run_reader import Run
from bench.report.site.leaderboard import Tab
from bench.report.site.rerun_command import Rerun, rerun
from bench.report.site.site_runs import SiteRun
from bench.store.aggregation import of_models
from bench.store.schema import FAILED, NOT_APPLICABLE, NOT_ASKED, NOT_INSTALLED, SKIPPED

PLOTS = ("training_curves",)
SETTINGS = "Values of the protocol and options of the model that differ from their defaults."


@dataclass(frozen=True)
class ModelPage:
    """The contents of a model's page.

    Attributes:
        title: name of the model.
        run: name of the run.
        notice: first sentence of a page that has little to show; "" otherwise.
        facts: the summary.
        tabs: tabs of the leaderboard that the model is in.
        warnings: rows of the model that are not comparable.
        reruns: the commands that make its numbers again.
        settings: settings that differ from their defaults; None if none are known.
        measurements: all metrics, a table per group of metrics, dataset and protocol.
        long_form: means over seeds of all metrics, one row each, as CSV; None without values.
        plots: training curves, or the reason why there are none.
        grids: images of its cells.
        provenance: commands, datasets, protocols and versions of its cells.
        missing: numbers that failed, were skipped or need a package, by reason.
        not_applicable: numbers that do not apply, by reason.
    """

    title: str
    run: str
    notice: str
    facts: list[outcomes.Fact]
    tabs: list[Tab]
    warnings: list[ComparisonWarning]
    reruns: list[Rerun]
    settings: SortableTable | None
    measurements: list[SortableTable]
    long_form: File | None
    plots: list[Drawn]
    grids: Grids
    provenance: Provenance
    missing: SortableTable | None
    not_applicable: SortableTable | None


def model_page(run: SiteRun, model: str, tabs: list[Tab]) -> ModelPage:
    """Return the page of a model of a run.

    Args:
        run: the run.
        model: name of the model.
        tabs: tabs of the leaderboard that the model is in.
    """
    own = _part(run.run, model)
    rows, records = own.rows, run.records.about(set(own.rows["cell_key"]))
    reruns = [rerun(part, records) for part in _commands(rows)]
    return ModelPage(
        title=model,
        run=run.name,
        notice=notice(rows),
        facts=_facts(rows),
        tabs=tabs,
        warnings=comparison_warnings(rows),
        reruns=reruns,
        settings=_changed(reruns),
        measurements=measurement_tables(own),
        long_form=long_form(own),
        plots=list(drawn(own, PLOTS)),
        grids=grids(own),
        provenance=provenance(records),
        missing=outcomes.missing_numbers(
            rows, (FAILED, SKIPPED, NOT_INSTALLED, NOT_ASKED), "missing"
        ),
        not_applicable=outcomes.missing_numbers(rows, (NOT_APPLICABLE,), "not_applicable"),
    )


def _facts(rows: pd.DataFrame) -> list[outcomes.Fact]:
    """Return the summary of a model, with the checksums of its datasets."""
    facts = [fact for fact in outcomes.facts(rows, frozenset()) if fact.name != "models"]
    checksums = rows[["dataset", "dataset_fingerprint"]].dropna().drop_duplicates()
    texts = tuple(f"{name}: {digest}" for name, digest in checksums.to_numpy().tolist())
    return [*facts, outcomes.Fact("checksums of the datasets", texts)] if texts else facts


def _part(run: Run, model: str) -> Run:
    """Return a run with the rows and cells of one model only."""
    own = copy.copy(run)
    rows = of_models(run.rows)
    own.rows = rows[rows["model"] == model].reset_index(drop=True)
    own.cells = run.cells[run.cells["model"] == model].reset_index(drop=True)
    return own


def _commands(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the rows that one command makes: one dataset and protocol, and each backend's seeds."""
    for _, part in rows.groupby(["dataset", "protocol", "protocol_hash"], dropna=False, sort=False):
        cells = part.groupby(["device", "backend"], dropna=False, sort=False)
        seeds = cells["seed"].transform(lambda values: str(sorted(set(values.dropna()))))
        for _, own in part.groupby([part["device"], seeds], dropna=False, sort=False):
            yield own


def _changed(reruns: list[Rerun]) -> SortableTable | None:
    """Return the settings that differ from their defaults, a column per protocol and dataset."""
    records = {}
    for each in reruns:
        if each.protocol is not None:
            values = each.protocol.model_dump(
                mode="json", exclude_defaults=True, exclude=set(UNHASHED)
            )
            records[each.title, each.protocol.hash] = {"for": each.title, **flattened(values)}
    return by_setting("settings", SETTINGS, "setting", [*records.values()])
