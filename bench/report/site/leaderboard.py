"""The leaderboard: a table of models for each protocol and dataset, over all runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from bench.report.model_means import SETTING, VARIES_WITHIN_MODEL, joined, model_names
from bench.report.page.comparability import ComparisonWarning, comparison_warnings
from bench.report.page.model_tables import ModelTable, settings, with_values
from bench.report.page.outcomes import Fact
from bench.report.page.sortable_table import SortableTable, TableColumn, TableEntry
from bench.report.run_reader import Run
from bench.report.site.distinct_names import fragments, numbered
from bench.report.site.protocol_values import VALUES, with_protocol_values
from bench.report.site.site_runs import SiteRun, joint_run, main_metrics
from bench.store.aggregation import of_models, whole_models
from bench.store.schema import DATASET, INCOMPLETE, Headline

BY = [*SETTING[:4], VALUES]
OTHER_VALUES = (
    "Another tab has this protocol's name with other values: a model has another protocol hash "
    "there. Numbers of the two tabs are not comparable."
)

Pages = Mapping[tuple[str, str], str]
"""Address of a page by the names of a run and of a model."""


@dataclass(frozen=True)
class Entry:
    """A row of the leaderboard: a model of a run.

    Attributes:
        run: the run.
        model: name of the model.
        name: name in the table: unique in it.
        shown: name that stands next to the run's name.
        rows: its rows about whole models.
    """

    run: SiteRun
    model: str
    name: str
    shown: str
    rows: pd.DataFrame

    @property
    def versions(self) -> list[str]:
        """The versions of the suite that computed its rows."""
        return self.run.versions(self.rows)

    @property
    def devices(self) -> list[str]:
        """The devices that its rows were measured on."""
        return sorted(map(str, self.rows["device"].dropna().unique()))


@dataclass(frozen=True)
class Tab:
    """The leaderboard of one protocol and dataset.

    Attributes:
        name: its identifier in the page.
        dataset: name of the dataset.
        subtitle: protocol, and what else tells the tab apart from others.
        facts: what its rows have in common.
        notice: how it differs from a tab of the same protocol and dataset; "" if there is none.
        table: the table.
        warnings: rows of the table that are not comparable.
        entries: the rows of the table.
        models: the numbers and verdicts of the table.
    """

    name: str
    dataset: str
    subtitle: str
    facts: list[Fact]
    notice: str
    table: SortableTable
    warnings: list[ComparisonWarning]
    entries: list[Entry]
    models: ModelTable

    @property
    def title(self) -> str:
        """The dataset, the protocol, and what else tells the tab apart from others."""
        return f"{self.dataset}, {self.subtitle}"


@dataclass(frozen=True)
class Leaderboard:
    """All tabs.

    Attributes:
        run: all runs as one.
        tabs: a tab per dataset and protocol that has numbers.
    """

    run: Run
    tabs: list[Tab]

    def of(self, run: SiteRun, model: str) -> list[Tab]:
        """Return the tabs that have a model of a run."""
        return [
            tab
            for tab in self.tabs
            if any(each.run is run and each.model == model for each in tab.entries)
        ]


def leaderboard(runs: Sequence[SiteRun], pages: Pages) -> Leaderboard:
    """Return the leaderboard of several runs.

    Args:
        runs: the runs.
        pages: address of the page of each model.
    """
    joint, headlines = joint_run(runs), main_metrics(runs)
    parts = [
        (title + (f", {label}" if label else ""), rows, used)
        for title, rows in settings(with_protocol_values(joint.rows), BY)
        if (used := with_values(_shown(rows, headlines), headlines))
        for label in rows[VALUES].unique()
    ]
    titles = numbered(title for title, _, _ in parts)
    tabs = [
        _Builder(runs, joint, rows, used).tab(name, title, pages)
        for name, title, (_, rows, used) in zip(fragments(titles), titles, parts, strict=True)
    ]
    return Leaderboard(joint, tabs)


def _shown(rows: pd.DataFrame, headlines: Mapping[str, Headline]) -> pd.DataFrame:
    rows = whole_models(rows)
    return rows[rows["metric"].isin(headlines)]


class _Builder:
    """Builder of one tab.

    Args:
        runs: the runs of the site.
        joint: all runs as one.
        rows: rows of the tab's dataset and protocol.
        used: the main metrics that have values.
    """

    def __init__(
        self,
        runs: Sequence[SiteRun],
        joint: Run,
        rows: pd.DataFrame,
        used: Mapping[str, Headline],
    ) -> None:
        self.runs = {run.name: run for run in runs}
        self.rows, self.used = rows, used
        self.named = _named(of_models(rows))
        self.shown = _shown(self.named, used)
        self.models = ModelTable(joint, self.shown, used)
        self.entries = list(self._entries())

    def tab(self, name: str, title: str, pages: Pages) -> Tab:
        """Return the tab.

        Args:
            name: identifier of the tab.
            title: dataset and protocol.
            pages: address of the page of each model.
        """
        dataset = str(self.rows["dataset"].iloc[0])
        return Tab(
            name=name,
            dataset=dataset,
            subtitle=title.removeprefix(f"{dataset}, "),
            facts=self._facts(),
            notice=OTHER_VALUES if self.rows[VALUES].iloc[0] else "",
            table=self._table(name, title, pages),
            warnings=self._warnings(),
            entries=self.entries,
            models=self.models,
        )

    def _entries(self) -> Iterator[Entry]:
        whole = whole_models(self.named)
        for name in self.shown["name"].unique():
            own = whole[whole["name"] == name]
            first = own.iloc[0]
            yield Entry(
                self.runs[first["run"]], str(first["model"]), str(name), str(first["shown"]), own
            )

    def _facts(self) -> list[Fact]:
        first = self.named.iloc[0]
        sizes = self.named["train_images"].dropna().unique()
        dataset = [f"{int(size):,} training images" for size in sorted(sizes)]
        if first["dataset_variant"] in INCOMPLETE:
            dataset.append(INCOMPLETE[first["dataset_variant"]])
        versions = sorted({version for each in self.entries for version in each.versions})
        devices = sorted({device for each in self.entries for device in each.devices})
        seeds = ", ".join(map(str, sorted(self.named["seed"].dropna().unique())))
        facts = {
            "dataset": [f"{first['dataset']}: {', '.join(dataset)}".removesuffix(": ")],
            "protocol": [str(first["protocol"])],
            "seeds": [seeds],
            "devices" if len(devices) > 1 else "device": devices,
            "versions of the suite" if len(versions) > 1 else "version of the suite": versions,
        }
        return [Fact(name, tuple(texts)) for name, texts in facts.items() if any(texts)]

    def _table(self, name: str, title: str, pages: Pages) -> SortableTable:
        """Return the table of models, with a column for the run and links to the pages."""
        plain = self.models.table(f"{name}-table", title)
        several = [
            len({tuple(getattr(entry, fact)) for entry in self.entries}) > 1
            for fact in ("devices", "versions")
        ]
        by_name = {entry.name: entry for entry in self.entries}
        body = []
        for row in plain.rows:
            entry = by_name[row[0].text]
            page = pages[entry.run.name, entry.model]
            model = replace(row[0], text=entry.shown, link=page)
            body.append((model, _run_entry(entry, *several), *row[1:]))
        footer = (plain.footer[0], TableEntry(""), *plain.footer[1:]) if plain.footer else ()
        columns = (plain.columns[0], TableColumn("run"), *plain.columns[1:])
        return replace(plain, columns=columns, rows=tuple(body), footer=footer)

    def _warnings(self) -> list[ComparisonWarning]:
        """Return the differences within the table; a model of another run is another model."""
        scales = self.rows[(self.rows["kind"] == DATASET) & self.rows["metric"].isin(self.used)]
        shown = self.shown.assign(
            model=self.shown["name"], cell_key=self.shown["run"] + "/" + self.shown["cell_key"]
        )
        return comparison_warnings(pd.concat([shown, scales], ignore_index=True))


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows of models with the name of their entry, ``name``, and without its run, ``shown``.

    Args:
        rows: rows of one tab.
    """
    varies = [*VARIES_WITHIN_MODEL, "device"]
    shown = pd.concat([model_names(own, varies) for _, own in rows.groupby("run", sort=False)])
    rows = rows.assign(shown=shown.reindex(rows.index))
    keys = rows[["shown", "run"]].drop_duplicates()
    several = keys["shown"].duplicated(keep=False)
    full = keys["shown"].where(~several, keys["shown"] + " (" + keys["run"] + ")")
    keys = keys.assign(name=numbered(full))
    names = {(shown, run): name for shown, run, name in keys.to_numpy().tolist()}
    pairs = zip(rows["shown"], rows["run"], strict=True)
    return rows.assign(name=[names[pair] for pair in pairs])


def _run_entry(entry: Entry, devices: bool, versions: bool) -> TableEntry:
    """Return the place of the run in a row.

    Args:
        entry: the row.
        devices: True to name the device, as the rows of the table differ in it.
        versions: True to name the version of the suite.
    """
    details = entry.devices if devices else []
    if versions:
        details = [*details, f"suite {joined(entry.versions) if entry.versions else 'unknown'}"]
    return TableEntry(entry.run.name, detail="; ".join(details))
