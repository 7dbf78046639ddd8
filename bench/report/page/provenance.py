"""The origin of the numbers: commands, machines, datasets, and protocols as resolved."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.report.page.sortable_table import SortableTable, TableColumn, TableEntry, count
from bench.store.schema import CELL_FILE, CELLS, RUN_FILE

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Provenance:
    """Records of a run directory, other than its rows.

    Attributes:
        commands: calls of ``bench run``: time, request, commit.
        environments: versions of Python and libraries, processor, CUDA.
        datasets: content, source and licence of each dataset.
        neurons: implementation of LIF neurons of each backend, and its device.
        protocol: every setting, as resolved for each model and dataset.
        planned: keys of the cells that were requested.
    """

    commands: SortableTable | None
    environments: SortableTable | None
    datasets: SortableTable | None
    neurons: SortableTable | None
    protocol: SortableTable | None
    planned: frozenset[str]

    @property
    def tables(self) -> list[SortableTable]:
        """The tables that are not empty, in the order of the report."""
        tables = (self.commands, self.datasets, self.neurons, self.protocol, self.environments)
        return [table for table in tables if table is not None]


@dataclass(frozen=True)
class Records:
    """Records of a run directory about its cells, other than rows.

    Attributes:
        commands: the calls of ``bench run`` in ``run.json``.
        cells: the content of every ``cell.json``.
    """

    commands: tuple[Record, ...]
    cells: tuple[Record, ...]

    def about(self, keys: Collection[str]) -> "Records":
        """Return the records of the cells with these keys."""
        return Records(
            tuple(each for each in self.commands if set(keys) & set(each.get("cells", []))),
            tuple(each for each in self.cells if each.get("key") in keys),
        )


def read_records(path: Path) -> Records:
    """Read ``run.json`` and the ``cell.json`` of every cell of a run directory.

    Raises:
        BenchError: one of these files cannot be read.
    """
    return Records(
        tuple(_read(path / RUN_FILE).get("commands", [])),
        tuple(_read(file) for file in sorted(path.glob(f"{CELLS}/*/{CELL_FILE}"))),
    )


def provenance(records: Records) -> Provenance:
    """Return the records of a run as tables."""
    commands, cells = records.commands, records.cells
    environments = [record.get("environment") or {} for record in (*commands, *cells)]
    return Provenance(
        commands=_commands(commands),
        environments=_environments(environments),
        datasets=_datasets(records),
        neurons=_neurons(cells),
        protocol=_protocol(cells),
        planned=frozenset(key for command in commands for key in command.get("cells", [])),
    )


def _read(path: Path) -> Record:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} cannot be read: {error}.") from error
    if not isinstance(content, dict):
        raise BenchError(f"{path} cannot be read: it is not a JSON object.")
    return content


def _commands(commands: Sequence[Record]) -> SortableTable | None:
    columns = ("started", "request", "cells", "commit", "version", "run")
    body = tuple(
        (
            TableEntry(str(command.get("started_at", ""))),
            TableEntry(_request(command.get("asked") or {})),
            count(len(command.get("cells", []))),
            TableEntry(str((command.get("environment") or {}).get("git_commit") or "unknown")),
            TableEntry(str((command.get("environment") or {}).get("version") or "unknown")),
            TableEntry(str(command.get("run_id", ""))),
        )
        for command in commands
    )
    headings = tuple(TableColumn(name, numeric=name == "cells") for name in columns)
    return SortableTable("commands", "Calls of bench run.", headings, body) if body else None


def _request(asked: Record) -> str:
    """Return a request as options of ``bench run``."""
    parts = []
    for name, value in asked.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        parts.append(f"--{name.replace('_', '-')} {text}")
    return " ".join(parts)


def _environments(environments: Sequence[Record]) -> SortableTable | None:
    distinct = _distinct([flattened(environment) for environment in environments if environment])
    return by_setting("environments", "Versions and machine.", "what", distinct)


def _datasets(records: Records) -> SortableTable | None:
    """Return the datasets of the cells, or of the commands of a reference, which has no cells."""
    used = [cell["dataset"] for cell in records.cells if cell.get("dataset")]
    requested = [info for command in records.commands for info in command.get("datasets") or []]
    infos = _distinct(used or requested)
    headings = ("name", "fingerprint", "variant", "shape", "train_size", "test_size")
    names = (*headings, "source", "licence")
    body = tuple(tuple(_plain(info.get(name)) for name in names) for info in infos)
    columns = tuple(
        TableColumn(name.replace("_", " ").replace("size", "images"), numeric=name.endswith("size"))
        for name in names
    )
    return SortableTable("datasets", "Datasets, by content.", columns, body) if body else None


def _neurons(cells: Sequence[Record]) -> SortableTable | None:
    headings = {
        "backend": "backend",
        "neuron_implementation": "LIF neurons",
        "neuron_verdict": "against the equations",
        "device": "device",
    }
    records = _distinct([{name: cell.get(name) for name in headings} for cell in cells])
    body = tuple(tuple(_plain(record[name]) for name in headings) for record in records)
    columns = tuple(map(TableColumn, headings.values()))
    caption = "Implementations of LIF neurons, how they compare with the equations, and devices."
    return SortableTable("neurons", caption, columns, body) if body else None


def _protocol(cells: Sequence[Record]) -> SortableTable | None:
    """Return a column per resolved protocol, headed by the models and datasets that used it."""
    by_content: dict[str, tuple[Record, list[str]]] = {}
    for cell in cells:
        resolved = flattened(cell.get("resolved_protocol") or {})
        _, holders = by_content.setdefault(json.dumps(resolved, sort_keys=True), (resolved, []))
        holder = f"{cell.get('model')} on {(cell.get('dataset') or {}).get('name')}"
        if holder not in holders:
            holders.append(holder)
    records = [{"for": ", ".join(holders), **resolved} for resolved, holders in by_content.values()]
    caption = "The protocol, as resolved for each model and dataset."
    return by_setting("protocol", caption, "setting", records)


def by_setting(
    name: str, caption: str, heading: str, records: Sequence[Record]
) -> SortableTable | None:
    """Return a table with a row per key: the value that all records share, or one per record.

    Args:
        name: a word that is unique in the page.
        caption: what the table shows.
        heading: heading of the column of keys.
        records: values by key.

    Returns:
        The table, or None if there are no records.
    """
    if not records:
        return None
    keys = list(dict.fromkeys(key for record in records for key in record))
    if len(records) == 1:
        columns: tuple[TableColumn, ...] = (TableColumn(heading), TableColumn("value"))
    else:
        several = (TableColumn(str(i + 1), "differs") for i in range(len(records)))
        columns = (TableColumn(heading), TableColumn("all"), *several)
    body: list[tuple[TableEntry, ...]] = []
    for key in keys:
        entries = [_plain(record.get(key)) for record in records]
        if len(entries) == 1:
            body.append((TableEntry(key), entries[0]))
        elif len(set(entries)) == 1:
            body.append((TableEntry(key), entries[0], *(TableEntry("") for _ in entries)))
        else:
            body.append((TableEntry(key), TableEntry(""), *entries))
    return SortableTable(name, caption, columns, tuple(body))


def flattened(record: Record, prefix: str = "") -> dict[str, Any]:
    """Return the values of a record without nesting.

    Args:
        record: values by key, of which some are records.
        prefix: what every key begins with.

    >>> flattened({"a": 1, "b": {"c": 2}})
    {'a': 1, 'b.c': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _distinct(records: Sequence[Record]) -> list[Record]:
    return list({json.dumps(record, sort_keys=True): record for record in records}.values())


def _plain(value: Any) -> TableEntry:
    if value is None:
        return TableEntry("none")
    if isinstance(value, list):
        return TableEntry(", ".join(map(str, value)) or "none")
    order = float(value) if isinstance(value, int | float) else None
    return TableEntry(str(value), order)
