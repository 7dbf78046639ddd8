"""Write the leaderboard of runs as a folder of static pages."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.report.page.figures import File
from bench.report.page.outcomes import Fact, facts
from bench.report.page.templating import environment, style_and_script
from bench.report.page.write import notice
from bench.report.site import leaderboard_json
from bench.report.site.distinct_names import file_stems
from bench.report.site.leaderboard import Leaderboard, Pages, leaderboard
from bench.report.site.model_page import model_page
from bench.report.site.public_folder import DATA, INDEX, MODELS, check_folder, write_folder
from bench.report.site.site_runs import SiteRun, read_runs
from bench.system.paths import safe_name

TEMPLATES = "bench.report.site"


@dataclass(frozen=True)
class Site:
    """A site that was written.

    Attributes:
        index: its first page.
        models: number of pages of models.
        runs: names of the runs on it.
        left_out: directories that have the same rows as an earlier one.
    """

    index: Path
    models: int
    runs: tuple[str, ...]
    left_out: tuple[Path, ...]


@dataclass(frozen=True)
class RunFacts:
    """Facts about a run on the first page.

    Attributes:
        name: name of the run.
        notice: what it lacks; "" if it has numbers.
        facts: its summary.
        models: names of its models, with the addresses of their pages.
    """

    name: str
    notice: str
    facts: list[Fact]
    models: list[tuple[str, str]]


def write_site(paths: Sequence[Path], out: Path) -> Site:
    """Write the leaderboard of runs: a page with a tab per protocol and dataset, and model pages.

    The same runs give the same bytes.

    Args:
        paths: run directories or references, at least one.
        out: folder to write: missing, empty, or a site that is replaced.

    Raises:
        BenchError: a path is not a run directory, or ``out`` cannot be written or has other
            contents.
    """
    check_folder(out)
    runs, left_out = read_runs(paths)
    pages = _pages(runs)
    board = leaderboard(runs, pages)
    files: dict[str, bytes] = {}
    for run in runs:
        for model in run.models:
            files |= _model_files(run, model, board, pages[run.name, model])
    facts = leaderboard_json.content(runs, board, pages)
    files[INDEX] = _rendered(
        "index.html.j2", board=board, runs=[_run_facts(run, pages) for run in runs], data=DATA
    )
    files[DATA] = json.dumps(facts, indent=1, allow_nan=False, ensure_ascii=False).encode()
    write_folder(files, out)
    return Site(out / INDEX, len(pages), tuple(run.name for run in runs), tuple(left_out))


def _pages(runs: Sequence[SiteRun]) -> Pages:
    """Return the address of the page of each model, relative to the first page."""
    keys = [(run.name, model) for run in runs for model in run.models]
    stems = file_stems(f"{run}-{model}" for run, model in keys)
    return {key: f"{MODELS}/{stem}.html" for key, stem in zip(keys, stems, strict=True)}


def _model_files(run: SiteRun, model: str, board: Leaderboard, page: str) -> dict[str, bytes]:
    """Return a model's page, and the files that it links to, by path.

    Args:
        run: the run of the model.
        model: its name.
        board: the leaderboard.
        page: address of the page.
    """
    linked = _LinkedFiles(Path(page).stem)
    contents = model_page(run, model, board.of(run, model))
    text = _rendered("model.html.j2", page=contents, address=linked.address, index=f"../{INDEX}")
    return {page: text} | {f"{MODELS}/{name}": content for name, content in linked.files.items()}


@dataclass
class _LinkedFiles:
    """The files that a page links to, in a folder next to it.

    Attributes:
        folder: name of the folder.
        files: contents by path from the page.
    """

    folder: str
    files: dict[str, bytes] = field(default_factory=dict)

    def address(self, file: File) -> str:
        """Return the address of a file, which is written with the page."""
        stem = safe_name(file.name)
        path, count = f"{self.folder}/{stem}", 1
        while self.files.get(path, file.content) != file.content:
            count += 1
            path = f"{self.folder}/{count}-{stem}"
        self.files[path] = file.content
        return path


def _run_facts(run: SiteRun, pages: Pages) -> RunFacts:
    rows = run.run.rows
    planned = frozenset(key for each in run.records.commands for key in each.get("cells", []))
    models = [(model, pages[run.name, model]) for model in run.models]
    shown = [each for each in facts(rows, planned) if each.name not in ("models", "protocol")]
    return RunFacts(run.name, notice(rows), shown, models)


def _rendered(template: str, **values: Any) -> bytes:
    made = environment(TEMPLATES, autoescape=True).get_template(template)
    return made.render(**values, **style_and_script(TEMPLATES)).encode()
