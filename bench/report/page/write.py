"""Write the report of a run as one self-contained HTML file, or as Markdown with its images."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import BenchError
from bench.report.page import figures, metric_tables, outcomes
from bench.report.page.comparability import ComparisonWarning, comparison_warnings
from bench.report.page.figures import Drawn, File, Grids
from bench.report.page.measurement_tables import measurement_tables
from bench.report.page.model_tables import model_tables
from bench.report.page.paper_tables import paper_tables
from bench.report.page.provenance import Provenance, provenance, read_records
from bench.report.page.scale_table import scale_table
from bench.report.page.sortable_table import SortableTable
from bench.report.page.templating import environment, style_and_script
from bench.report.run_reader import Run
from bench.store.aggregation import of_models, whole_models
from bench.store.schema import FAILED, NOT_APPLICABLE, NOT_ASKED, NOT_INSTALLED, OK, SKIPPED
from bench.system.files import atomic
from bench.system.formatting import escape_markdown, pipe_table

NO_ROWS = "This run has no rows yet."
NO_VALUES = "Nothing was measured: no row of this run has a value."


@dataclass(frozen=True)
class Report:
    """The contents of a report, for all formats.

    Attributes:
        title: name of the run directory.
        notice: first sentence of a report that has little to show; "" otherwise.
        facts: the summary.
        models: main metrics of each model, a table per dataset and protocol.
        warnings: rows that are not comparable.
        measurements: all metrics by model, a table per group of metrics, dataset and protocol.
        long_form: means over seeds of all metrics, one row each, as CSV; None without values.
        tables: main metrics by backend, cells, trained extractors, scales of distances, and tables
            of papers.
        plots: plots, or the reasons why they were not drawn.
        grids: images of the cells.
        provenance: commands, datasets, protocols, versions.
        missing: numbers that failed, were skipped or need a package, by reason.
        not_applicable: numbers that do not apply, by reason.
    """

    title: str
    notice: str
    facts: list[outcomes.Fact]
    models: list[SortableTable]
    warnings: list[ComparisonWarning]
    measurements: list[SortableTable]
    long_form: File | None
    tables: list[SortableTable]
    plots: list[Drawn]
    grids: Grids
    provenance: Provenance
    missing: SortableTable | None
    not_applicable: SortableTable | None


def build(path: Path) -> Report:
    """Return the report of a run directory.

    Raises:
        BenchError: not a run directory, or one that cannot be read.
    """
    run = Run(path)
    rows = run.rows
    origin = provenance(read_records(path))
    several = of_models(rows).groupby("model")["backend"].nunique().gt(1).any()
    tables = (
        metric_tables.by_backend(run) if several else None,
        metric_tables.cells(run),
        metric_tables.extractors(rows),
        scale_table(rows),
    )
    return Report(
        title=path.resolve().name,
        notice=notice(rows),
        facts=outcomes.facts(rows, origin.planned),
        models=model_tables(run),
        warnings=comparison_warnings(rows),
        measurements=measurement_tables(run),
        long_form=long_form(run),
        tables=[*(table for table in tables if table is not None), *paper_tables(rows, path)],
        plots=list(figures.drawn(run)),
        grids=figures.grids(run),
        provenance=origin,
        missing=outcomes.missing_numbers(
            rows, (FAILED, SKIPPED, NOT_INSTALLED, NOT_ASKED), "missing"
        ),
        not_applicable=outcomes.missing_numbers(rows, (NOT_APPLICABLE,), "not_applicable"),
    )


def long_form(run: Run) -> File | None:
    """Return the means of whole models over seeds as CSV; None if there are no values."""
    table = run.across_seeds(whole_models(run.rows))
    if table.empty:
        return None
    return File("measurements.csv", table.to_csv(index=False).encode(), "text/csv")


def notice(rows: pd.DataFrame) -> str:
    """Return the first sentence of a report that has little to show; "" otherwise."""
    if (rows["status"] == OK).any():
        return ""
    return NO_ROWS if rows.empty else NO_VALUES


def summary_html(run: Run) -> str:
    """Return the head of a run's report as a fragment of HTML: name, facts and main metrics.

    Raises:
        BenchError: the run cannot be read.
    """
    rows = run.rows
    return (
        environment(autoescape=True)
        .get_template("summary.html.j2")
        .render(
            title=run.path.resolve().name,
            notice=notice(rows),
            facts=outcomes.facts(rows, provenance(read_records(run.path)).planned),
            models=model_tables(run),
        )
    )


def write_html(path: Path, out: Path | None = None) -> Path:
    """Write the report of a run as one HTML file that opens from disk without a network.

    Args:
        path: the run directory.
        out: file to write; ``report.html`` in the run directory if None.

    Returns:
        The file that was written.

    Raises:
        BenchError: not a run directory, or the file cannot be written.
    """
    template = environment(autoescape=True).get_template("report.html.j2")
    text = template.render(report=build(path), address=_data_uri, **style_and_script())
    out = out or path / "report.html"
    _write(out, text.encode())
    return out


def write_markdown(path: Path, out: Path | None = None) -> Path:
    """Write the report of a run as Markdown, and its images to a folder next to the file.

    Args:
        path: the run directory.
        out: file to write; ``report.md`` in the run directory if None.

    Returns:
        The file that was written.

    Raises:
        BenchError: not a run directory, or the files cannot be written.
    """
    out = out or path / "report.md"
    folder = out.parent / f"{out.stem}-files"
    report = build(path)
    template = environment(finalize=_escaped).get_template("report.md.j2")
    files: dict[str, File] = {}

    def link(file: File) -> "_Markdown":
        files[file.name] = file
        return _Markdown(f"<{folder.name}/{file.name}>")

    text = template.render(report=report, link=link, pipe_table=_pipe_table)
    _write(out, text.encode())
    for file in files.values():
        _write(folder / file.name, file.content)
    return out


WRITERS: dict[str, Callable[[Path, Path | None], Path]] = {
    "html": write_html,
    "md": write_markdown,
}


class _Markdown(str):
    """Text that is Markdown already."""


def _escaped(value: Any) -> Any:
    """Escape what a template inserts, unless it is Markdown."""
    if isinstance(value, _Markdown) or not isinstance(value, str):
        return value
    return escape_markdown(value)


def _pipe_table(table: SortableTable) -> _Markdown:
    headings = [column.heading for column in table.columns]
    right = [i for i, column in enumerate(table.columns) if column.numeric]
    rows = [*table.rows, *([table.footer] if table.footer else [])]
    strong = {(i, j) for i, row in enumerate(rows) for j, entry in enumerate(row) if entry.strong}
    texts = ([entry.line for entry in row] for row in rows)
    return _Markdown(pipe_table(headings, texts, right, strong))


def _data_uri(file: File) -> str:
    return f"data:{file.media_type};base64,{base64.b64encode(file.content).decode()}"


def _write(path: Path, content: bytes) -> None:
    try:
        with atomic(path) as file:
            file.write(content)
    except OSError as error:
        raise BenchError(
            f"{path} cannot be written: {error.strerror}. Choose another file with --out."
        ) from error
