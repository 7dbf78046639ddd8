"""The table that answers which model is best: models by main metrics, per dataset and protocol."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from bench.report.best_models import Best, best_models
from bench.report.model_means import (
    SETTING,
    equal_backends,
    fold,
    joined,
    model_names,
    over_seeds,
)
from bench.report.page.sortable_table import SortableTable, TableColumn, TableEntry
from bench.report.query import records_by
from bench.report.run_reader import Run
from bench.store.aggregation import whole_models
from bench.store.other_neurons import footnotes
from bench.store.schema import (
    COMPARABLE_BY,
    ENOUGH_SEEDS,
    INCOMPLETE,
    NO_VALUE,
    NOT_APPLICABLE,
    OK,
    TIMED_UNIT,
    Headline,
    status_word,
)
from bench.system.formatting import Scale, compact, number, readable_scale, with_interval

LONGEST_PROTOCOL = 48
# An interval that is smaller, relative to the value, is rounding.
ROUNDING = 1e-9
ARROWS = {True: " ↑", False: " ↓"}
DIRECTIONS = {True: "higher is better", False: "lower is better"}
PLACE = ["name", "metric"]
MEAN = ["name", "value", "ci_low", "ci_high", "least", "most"]
"""Columns of a mean that its entry shows."""
WITHOUT_NUMBER = ["status", "reason", "split"]
"""Columns of a row that say why there is no number."""
SEED_INTERVAL = "± is half of the 95 % interval of the mean over seeds (Student's t)"
OTHER_MACHINE = "measured on different devices"
IMAGE_INTERVAL = "with a single seed, half of the interval over images"


def model_tables(run: Run) -> list[SortableTable]:
    """Return the main metrics, a row per model, in one table per dataset and protocol.

    Backends of a model are averaged. The last row names the best model by each metric, or the
    models that do not differ from it by more than chance.
    """
    headlines = run.headlines("report")
    shown = whole_models(run.rows)
    shown = shown[shown["metric"].isin(headlines)]
    tables: list[SortableTable] = []
    for title, rows in settings(shown):
        used = with_values(rows, headlines)
        if used:
            own = rows.assign(name=model_names(rows))
            tables.append(ModelTable(run, own, used).table(f"models-{len(tables) + 1}", title))
    return tables


def with_values(rows: pd.DataFrame, headlines: Mapping[str, Headline]) -> dict[str, Headline]:
    """Return the main metrics that have a value of their split in rows of one setting."""
    return {name: each for name, each in headlines.items() if _has_value(rows, name, each)}


def settings(rows: pd.DataFrame, by: Sequence[str] = SETTING) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of each dataset and protocol, with a title.

    What else rules out a comparison, such as a part of a dataset or a device, separates rows too
    and stands in the title.

    Args:
        rows: rows of a run.
        by: columns that separate rows: :data:`bench.report.model_means.SETTING`, or others with
            the first four of it.
    """
    for setting, group in rows.groupby([*by], dropna=False, sort=False):
        facts = dict(zip(by, setting, strict=True))
        title = f"{facts['dataset']}, protocol {short_protocol(str(facts['protocol']))}"
        same = rows[(rows["dataset"] == facts["dataset"]) & (rows["protocol"] == facts["protocol"])]
        if facts["dataset_variant"] in INCOMPLETE:
            title += f", {INCOMPLETE[facts['dataset_variant']]}"
        if same["dataset_fingerprint"].nunique(dropna=False) > 1:
            title += f", content {str(facts['dataset_fingerprint'])[:12]}"
        if "device" in by and same["device"].nunique(dropna=False) > 1:
            title += f", on {facts['device']}"
        yield title, group


def short_protocol(protocol: str) -> str:
    """Return the name of a protocol, of whose changed settings only so many are shown as fit.

    >>> short_protocol("smoke+epochs=3")
    'smoke+epochs=3'
    >>> short_protocol("smoke+" + "+".join(f"setting_{i}=1" for i in range(9)))
    'smoke+setting_0=1+setting_1=1+setting_2=1 and 6 more settings'
    """
    if len(protocol) <= LONGEST_PROTOCOL:
        return protocol
    parts = protocol.split("+")
    shown = next(n for n in range(len(parts), 0, -1) if n == 1 or _fits(parts[:n]))
    return f"{'+'.join(parts[:shown])} and {len(parts) - shown} more settings"


def _fits(parts: list[str]) -> bool:
    return len("+".join(parts)) <= LONGEST_PROTOCOL


class ModelTable:
    """The table of one setting.

    Args:
        run: the run.
        rows: rows of main metrics in the setting, with the column ``name``.
        headlines: the main metrics that have values.

    Attributes:
        best: the best model by each metric that can be compared.
        incomparable: for each other metric, why its numbers are not compared.
    """

    def __init__(self, run: Run, rows: pd.DataFrame, headlines: Mapping[str, Headline]) -> None:
        splits = rows["metric"].map({name: each.split for name, each in headlines.items()})
        of_split = rows["split"].fillna("") == splits.fillna("")
        self.run, self.rows, self.headlines = run, rows, headlines
        shown = rows[of_split & rows["metric"].isin(headlines)]
        folded = fold(shown)
        self.means = over_seeds(folded, run)
        self.mean_of = records_by(self.means, PLACE, MEAN)
        self.rows_of = records_by(rows, PLACE, WITHOUT_NUMBER)
        self.incomparable = _incomparable(shown, run)
        self.best, self.tests = best_models(folded[~folded["metric"].isin(self.incomparable)])
        self.backends = equal_backends(rows[of_split], run)
        self.scales = {
            metric: readable_scale(str(own["unit"].iloc[0]), own["value"])
            for metric, own in self.means.groupby("metric", sort=False)
        }
        self.budgets = (rows["train_images"] * rows["epoch"]).groupby(rows["name"]).max()

    def table(self, name: str, title: str) -> SortableTable:
        """Return the table, under its name in the page and its title."""
        names = list(self.rows["name"].unique())
        return SortableTable(
            name,
            f"{SEED_INTERVAL}; {IMAGE_INTERVAL}. Bold: better than every other model.",
            (
                TableColumn("model"),
                TableColumn("seeds", "number of seeds that the mean is over", True),
                TableColumn("trained on, images", "training images times epochs", True),
                *(self._column(metric) for metric in self.headlines),
            ),
            tuple(self._row(model) for model in names),
            title=title,
            footer=self._footer() if len(names) > 1 else (),
            note=self._note(),
            narrow=True,
        )

    def _column(self, metric: str) -> TableColumn:
        main, scale = self.headlines[metric], self.scales[metric]
        up = self.rows.loc[self.rows["metric"] == metric, "higher_is_better"].iloc[0]
        meaning = f"{metric}, {main.split}" if main.split else metric
        heading = with_unit(main.label, scale)
        if pd.isna(up):
            return TableColumn(heading, meaning, True)
        return TableColumn(heading + ARROWS[bool(up)], f"{meaning}: {DIRECTIONS[bool(up)]}", True)

    def _row(self, name: str) -> tuple[TableEntry, ...]:
        own = self.rows[self.rows["name"] == name]
        seeds = sorted(own["seed"].dropna().unique())
        budget = self.budgets.get(name)
        return (
            TableEntry(name, detail=_backends(self.backends.get(name, []), own)),
            TableEntry(str(len(seeds)), len(seeds), f"seeds {', '.join(map(str, seeds))}"),
            TableEntry("") if pd.isna(budget) else TableEntry(compact(budget), float(budget)),
            *(self._entry(name, metric) for metric in self.headlines),
        )

    def _entry(self, name: str, metric: str) -> TableEntry:
        found = self.mean_of.get((name, metric))
        if not found:
            return without_number(self.rows_of.get((name, metric), []))
        best = self.best.get(metric)
        strong = best is not None and best.model == name and not best.equals
        of_machine = not self.run.declaration(metric).reproducible
        return mean_entry(found[0], self.scales[metric], strong, of_machine)

    def _footer(self) -> tuple[TableEntry, ...]:
        return (
            TableEntry("best"),
            TableEntry(""),
            TableEntry(""),
            *(
                TableEntry("not comparable", note=self.incomparable[metric])
                if metric in self.incomparable
                else _verdict(self.best.get(metric))
                for metric in self.headlines
            ),
        )

    def _note(self) -> str:
        """Return which tests the table's verdicts rest on, and what is not equal in it."""
        used = frozenset().union(*(best.methods for best in self.best.values()))
        sentences = []
        if "seeds" in used:
            sentences.append(
                f"With {ENOUGH_SEEDS} or more seeds, Welch's t-test decides whether two models "
                f"differ (p ≤ 0.05 after the correction of Benjamini and Hochberg for "
                f"{self.tests} tests)."
            )
        if "intervals" in used:
            sentences.append(
                f"With fewer than {ENOUGH_SEEDS} seeds, intervals over images decide, which must "
                "not overlap."
            )
        if "none" in used:
            sentences.append("Numbers of a single run without an interval are not compared.")
        if OTHER_MACHINE in self.incomparable.values():
            sentences.append("Speed and memory on different devices are not comparable.")
        if self.budgets.nunique() > 1:
            sentences.append("The models were trained on different numbers of images.")
        return " ".join([*sentences, *footnotes(self.rows["backend"])])


def with_unit(label: str, scale: Scale) -> str:
    """Return a heading with its unit; a unit that repeats the heading is shortened.

    >>> with_unit("energy per sample", Scale(1e-6, "µJ per image"))
    'energy per sample, µJ'
    >>> with_unit("parameters", Scale(1e-3, "thousand parameters"))
    'parameters, thousand'
    """
    unit = scale.unit.removesuffix(" per image") if "per " in label else scale.unit
    unit = unit.removesuffix(label.split(",")[0]).strip()
    return f"{label}, {unit}" if unit and len(unit) <= 24 else label


def mean_entry(row: Mapping[str, Any], scale: Scale, strong: bool, of_machine: bool) -> TableEntry:
    """Return the entry of a mean: the number, and below it half of its interval.

    Args:
        row: a row of :func:`bench.report.model_means.over_seeds`, with ``MEAN``.
        scale: unit of the number.
        strong: True to emphasise it.
        of_machine: True for a metric of the machine: of several backends, whose mean says nothing,
            the range is shown.
    """
    value, low, high = (row[name] * scale.factor for name in ("value", "ci_low", "ci_high"))
    least, most = row["least"] * scale.factor, row["most"] * scale.factor
    note = f"{number(low)} to {number(high)}" if not pd.isna(low) else ""
    if least != most:
        note = f"{note}; by backend {number(least)} to {number(most)}".removeprefix("; ")
        if of_machine:
            return TableEntry(f"{number(least, 3)} to {number(most, 3)}", float(row["value"]), note)
    if high - low <= ROUNDING * abs(value):
        low = high = value
    text, _, half = with_interval(value, low, high).partition(" ± ")
    return TableEntry(
        text, float(row["value"]), note, detail=f"± {half}" if half else "", strong=strong
    )


def without_number(rows: Collection[Mapping[Any, Any]]) -> TableEntry:
    """Return the entry of a place without a number: why there is none.

    Args:
        rows: rows of one model and metric, of any split, with ``WITHOUT_NUMBER``.
    """
    reasons = {row["status"]: row["reason"] for row in reversed([*rows])}
    for status in NO_VALUE:
        if status in reasons:
            note = "" if pd.isna(reasons[status]) else str(reasons[status])
            return TableEntry(status_word(status), None, note, status)
    # Values of other splits than the table shows.
    splits = ", ".join(dict.fromkeys(row["split"] for row in rows if not pd.isna(row["split"])))
    if not splits:
        return TableEntry("")
    return TableEntry(status_word(NOT_APPLICABLE), None, f"of {splits} only", NOT_APPLICABLE)


def _has_value(rows: pd.DataFrame, metric: str, main: Headline) -> bool:
    own = rows[(rows["metric"] == metric) & rows["value"].notna()]
    return bool((own["split"].fillna("") == (main.split or "")).any())


def _incomparable(rows: pd.DataFrame, run: Run) -> dict[str, str]:
    """Return the metrics whose numbers cannot be compared, each with the reason.

    The warnings say so, or the metric is of the machine and the devices differ.

    Args:
        rows: rows of one setting.
        run: the run of the rows.
    """
    known = rows[rows["status"] == OK]
    known = known.assign(n=known["n"].mask(known["unit"] == TIMED_UNIT))
    kinds = known.groupby("metric")[[*COMPARABLE_BY, "device"]].nunique(dropna=False) > 1
    reasons = {}
    for metric, differs in kinds.iterrows():
        if differs[list(COMPARABLE_BY)].any():
            reasons[str(metric)] = "see the warnings"
        elif differs["device"] and not run.declaration(str(metric)).reproducible:
            reasons[str(metric)] = OTHER_MACHINE
    return reasons


def _backends(groups: list[list[str]], rows: pd.DataFrame) -> str:
    names = list(rows["backend"].unique())
    if len(names) == 1:
        return str(names[0])
    if len(groups) == 1:
        return f"{joined(map(str, names))}: same numbers"
    return f"mean of {joined(map(str, names))}"


def _verdict(best: Best | None) -> TableEntry:
    if best is None:
        return TableEntry("")
    if best.methods == {"none"}:
        return TableEntry("not compared")
    if not best.equals:
        return TableEntry(best.model)
    names = [best.model, *best.equals]
    return TableEntry("no difference", note=joined(names), detail=", ".join(names))
