"""The summary of a run, and the reasons for missing numbers."""

from dataclasses import dataclass

import pandas as pd

from bench.report.page.metric_tables import cell_statuses
from bench.report.page.sortable_table import SortableTable, TableColumn, TableEntry, count
from bench.store.aggregation import of_models
from bench.store.schema import EXTRACTOR, INCOMPLETE, NO_VALUE, OK

# The order in which the summary counts cells and rows.
ENDS = (OK, "incomplete", *NO_VALUE)
SHOWN = 3


@dataclass(frozen=True)
class Fact:
    """One line of the summary.

    Attributes:
        name: what the line is about.
        texts: what it says, in one or more parts.
    """

    name: str
    texts: tuple[str, ...]


def facts(rows: pd.DataFrame, planned: frozenset[str]) -> list[Fact]:
    """Return the summary of a run: models, datasets, protocol, seeds, and how cells ended.

    Args:
        rows: rows of the run.
        planned: keys of the cells that the commands of the run requested.
    """
    if rows.empty:
        return [Fact("cells", (_absent(rows, planned) or "none",))]
    return [
        *_names(rows),
        Fact("datasets", _datasets(rows)),
        Fact("protocol", _protocols(rows)),
        Fact("seeds", (_listed(rows["seed"].sort_values()),)),
        Fact("device", _distinct(rows["device"])),
        Fact("cells", _cells(rows, planned)),
        Fact("rows", (_tally(rows["status"]),)),
    ]


def missing_numbers(
    rows: pd.DataFrame, statuses: tuple[str, ...], name: str
) -> SortableTable | None:
    """Return each reason once, with the metrics and cells that have no number because of it.

    Args:
        rows: rows of the run.
        statuses: statuses of the rows to list.
        name: name of the table.

    Returns:
        The table, or None if no row has one of these statuses.
    """
    absent = rows[rows["status"].isin(statuses)]
    if absent.empty:
        return None
    columns = (
        TableColumn("reason"),
        TableColumn("status"),
        TableColumn("metrics"),
        TableColumn("cells", "number of cells", True),
        TableColumn("of"),
    )
    absent = absent.assign(reason=absent["reason"].fillna("no reason was recorded"))
    groups = absent.groupby(["status", "reason"], sort=False)
    body = tuple(
        (
            TableEntry(str(reason)),
            TableEntry(str(status), status=str(status)),
            TableEntry(_metrics(group, rows)),
            count(group["cell_key"].nunique()),
            TableEntry(_cell_names(group)),
        )
        for (status, reason), group in groups
    )
    return SortableTable(name, "Why these numbers are missing, each reason once.", columns, body)


def _names(rows: pd.DataFrame) -> list[Fact]:
    """Return the names of models and backends, and of trained extractors if there are any."""
    models = of_models(rows)
    facts = [Fact(f"{name}s", (_listed(models[name]),)) for name in ("model", "backend")]
    extractors = rows.loc[rows["kind"] == EXTRACTOR, "model"]
    return facts if extractors.empty else [*facts, Fact("extractors", (_listed(extractors),))]


def _distinct(values: pd.Series) -> tuple[str, ...]:
    return tuple(str(value) for value in values.dropna().unique())


def _listed(values: pd.Series) -> str:
    return ", ".join(_distinct(values))


def _tally(statuses: pd.Series) -> str:
    counts = statuses.value_counts()
    order = [name for name in ENDS if name in counts]
    return ", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in order)


def _cells(rows: pd.DataFrame, planned: frozenset[str]) -> tuple[str, ...]:
    statuses = cell_statuses(rows)
    absent = _absent(rows, planned)
    return (f"{len(statuses)}: {_tally(statuses)}", *([absent] if absent else []))


def _absent(rows: pd.DataFrame, planned: frozenset[str]) -> str:
    absent = len(planned - set(rows["cell_key"]))
    if not absent:
        return ""
    return f"{absent} more were requested and have no rows: the same command again runs them"


def _datasets(rows: pd.DataFrame) -> tuple[str, ...]:
    texts = []
    for name, group in rows.groupby("dataset", sort=False):
        variants = [INCOMPLETE[v] for v in _distinct(group["dataset_variant"]) if v in INCOMPLETE]
        sizes = [f"{int(n):,} training images" for n in group["train_images"].dropna().unique()]
        about = "; ".join([*sizes, *variants])
        texts.append(f"{name}: {about}" if about else str(name))
    return tuple(texts)


def _protocols(rows: pd.DataFrame) -> tuple[str, ...]:
    return _distinct(rows["protocol"])


def _metrics(group: pd.DataFrame, rows: pd.DataFrame) -> str:
    names = group["metric"].unique()
    total = rows.loc[rows["cell_key"].isin(group["cell_key"]), "metric"].nunique()
    if len(names) == total > SHOWN:
        return f"all {total}"
    return ", ".join(names)


def _cell_names(group: pd.DataFrame) -> str:
    cells = group.drop_duplicates("cell_key")
    if len(cells) <= SHOWN:
        return "; ".join(
            f"{row.model}/{row.backend}/{row.dataset} seed {row.seed}" for row in cells.itertuples()
        )
    models, datasets = cells["model"].unique(), cells["dataset"].unique()
    return f"{', '.join(models)} on {', '.join(datasets)}"
