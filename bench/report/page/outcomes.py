"""What was run, how it ended, and why numbers are missing."""

from dataclasses import dataclass

import pandas as pd

from bench.report.comparability import INCOMPLETE
from bench.report.page.metric_tables import cell_statuses
from bench.report.page.sortable_table import Column, Entry, Table, count

SHOWN = 3


@dataclass(frozen=True)
class Fact:
    """One line of the summary: a name and what is said of it."""

    name: str
    texts: tuple[str, ...]


def facts(rows: pd.DataFrame, planned: frozenset[str]) -> list[Fact]:
    """What was run, in a few lines.

    Args:
        rows: of the run.
        planned: keys of the cells that the run's commands asked for.
    """
    if rows.empty:
        return [Fact("cells", (_absent(rows, planned) or "none",))]
    return [
        *(Fact(f"{name}s", (_listed(rows[name]),)) for name in ("model", "backend")),
        Fact("datasets", _datasets(rows)),
        Fact("protocol", _protocols(rows)),
        Fact("seeds", (_listed(rows["seed"].sort_values()),)),
        Fact("device", _distinct(rows["device"])),
        Fact("cells", _cells(rows, planned)),
        Fact("rows", (_tally(rows["status"]),)),
    ]


def missing_numbers(rows: pd.DataFrame, statuses: tuple[str, ...], name: str) -> Table | None:
    """Each reason once, with the metrics and cells that have no number because of it."""
    absent = rows[rows["status"].isin(statuses)]
    if absent.empty:
        return None
    columns = (
        Column("reason"),
        Column("status"),
        Column("metrics"),
        Column("cells", "how many cells", True),
        Column("of"),
    )
    absent = absent.assign(reason=absent["reason"].fillna("no reason was noted"))
    groups = absent.groupby(["status", "reason"], sort=False)
    body = tuple(
        (
            Entry(str(reason)),
            Entry(str(status), status=str(status)),
            Entry(_metrics(group, rows)),
            count(group["cell_key"].nunique()),
            Entry(_of(group)),
        )
        for (status, reason), group in groups
    )
    return Table(name, "Why these numbers are missing, each reason once.", columns, body)


def _distinct(values: pd.Series) -> tuple[str, ...]:
    return tuple(str(value) for value in values.dropna().unique())


def _listed(values: pd.Series) -> str:
    return ", ".join(_distinct(values))


def _tally(statuses: pd.Series) -> str:
    counts = statuses.value_counts()
    ends = ("ok", "incomplete", "failed", "skipped", "not_applicable")
    order = [name for name in ends if name in counts]
    return ", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in order)


def _cells(rows: pd.DataFrame, planned: frozenset[str]) -> tuple[str, ...]:
    statuses = cell_statuses(rows)
    absent = _absent(rows, planned)
    return (f"{len(statuses)}: {_tally(statuses)}", *([absent] if absent else []))


def _absent(rows: pd.DataFrame, planned: frozenset[str]) -> str:
    absent = len(planned - set(rows["cell_key"]))
    if not absent:
        return ""
    return f"{absent} more were asked for and have no rows: the same command again runs them"


def _datasets(rows: pd.DataFrame) -> tuple[str, ...]:
    texts = []
    for name, group in rows.groupby("dataset", sort=False):
        variants = [INCOMPLETE[v] for v in _distinct(group["dataset_variant"]) if v in INCOMPLETE]
        sizes = [f"{int(n):,} training images" for n in group["train_images"].dropna().unique()]
        about = "; ".join([*sizes, *variants])
        texts.append(f"{name}: {about}" if about else str(name))
    return tuple(texts)


def _protocols(rows: pd.DataFrame) -> tuple[str, ...]:
    distinct = rows[["protocol", "protocol_hash"]].drop_duplicates()
    names = zip(distinct["protocol"], distinct["protocol_hash"], strict=True)
    return tuple(f"{name} ({str(digest)[:12]})" for name, digest in names)


def _metrics(group: pd.DataFrame, rows: pd.DataFrame) -> str:
    names = group["metric"].unique()
    everything = rows.loc[rows["cell_key"].isin(group["cell_key"]), "metric"].nunique()
    if len(names) == everything > SHOWN:
        return f"all {everything}"
    return ", ".join(names)


def _of(group: pd.DataFrame) -> str:
    cells = group.drop_duplicates("cell_key")
    if len(cells) <= SHOWN:
        return "; ".join(
            f"{row.model}/{row.backend}/{row.dataset} seed {row.seed}" for row in cells.itertuples()
        )
    models, datasets = cells["model"].unique(), cells["dataset"].unique()
    return f"{', '.join(models)} on {', '.join(datasets)}"
