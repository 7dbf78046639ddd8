"""Where the numbers come from: commands, machines, data, protocols as they were resolved."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.report.page.sortable_table import Column, Entry, Table, count
from bench.store.run_directory import RUN_FILE

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Provenance:
    """What the run directory notes down beside its rows.

    Attributes:
        commands: each call of ``bench run``: when, what was asked, on which commit.
        environments: versions of Python and libraries, processor, CUDA.
        datasets: content, source and licence of each dataset.
        neurons: which implementation of LIF neurons ran, on which device.
        protocol: every setting as each model and dataset got it.
        planned: keys of the cells that were asked for.
    """

    commands: Table | None
    environments: Table | None
    datasets: Table | None
    neurons: Table | None
    protocol: Table | None
    planned: frozenset[str]

    @property
    def tables(self) -> list[Table]:
        """Those that there are, in the order in which they are read."""
        tables = (self.commands, self.datasets, self.neurons, self.protocol, self.environments)
        return [table for table in tables if table is not None]


def provenance(path: Path) -> Provenance:
    """Read ``run.json`` and every ``cells/*/cell.json``.

    Raises:
        BenchError: one of these files cannot be read.
    """
    commands = _read(path / RUN_FILE).get("commands", [])
    cells = [_read(file) for file in sorted(path.glob("cells/*/cell.json"))]
    environments = [record.get("environment") or {} for record in (*commands, *cells)]
    return Provenance(
        commands=_commands(commands),
        environments=_environments(environments),
        datasets=_datasets(cells),
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
        raise BenchError(f"{path} cannot be read: it holds no JSON object.")
    return content


def _commands(commands: Sequence[Record]) -> Table | None:
    columns = ("started", "asked for", "cells", "commit", "version", "run")
    body = tuple(
        (
            Entry(str(command.get("started_at", ""))),
            Entry(_asked(command.get("asked") or {})),
            count(len(command.get("cells", []))),
            Entry(str((command.get("environment") or {}).get("git_commit") or "unknown")),
            Entry(str((command.get("environment") or {}).get("version") or "unknown")),
            Entry(str(command.get("run_id", ""))),
        )
        for command in commands
    )
    headings = tuple(Column(name, numeric=name == "cells") for name in columns)
    return Table("commands", "Calls of bench run.", headings, body) if body else None


def _asked(asked: Record) -> str:
    """What was asked, as ``bench run`` takes it."""
    parts = []
    for name, value in asked.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        parts.append(f"--{name.replace('_', '-')} {text}")
    return " ".join(parts)


def _environments(environments: Sequence[Record]) -> Table | None:
    distinct = _distinct([_flat(environment) for environment in environments if environment])
    return _by_setting("environments", "Versions and machine.", "what", distinct)


def _datasets(cells: Sequence[Record]) -> Table | None:
    infos = _distinct([cell["dataset"] for cell in cells if cell.get("dataset")])
    headings = ("name", "fingerprint", "variant", "shape", "train_size", "test_size")
    names = (*headings, "source", "licence")
    body = tuple(tuple(_plain(info.get(name)) for name in names) for info in infos)
    columns = tuple(
        Column(name.replace("_", " ").replace("size", "images"), numeric=name.endswith("size"))
        for name in names
    )
    return Table("datasets", "Datasets, by content.", columns, body) if body else None


def _neurons(cells: Sequence[Record]) -> Table | None:
    names = ("backend", "neuron_implementation", "device")
    found = _distinct([{name: cell.get(name) for name in names} for cell in cells])
    body = tuple(tuple(_plain(record[name]) for name in names) for record in found)
    columns = (Column("backend"), Column("LIF neurons"), Column("device"))
    return Table("neurons", "What ran on what.", columns, body) if body else None


def _protocol(cells: Sequence[Record]) -> Table | None:
    """One column each resolved protocol, headed by the models and datasets that had it."""
    by_content: dict[str, tuple[Record, list[str]]] = {}
    for cell in cells:
        resolved = _flat(cell.get("resolved_protocol") or {})
        _, holders = by_content.setdefault(json.dumps(resolved, sort_keys=True), (resolved, []))
        holder = f"{cell.get('model')} on {(cell.get('dataset') or {}).get('name')}"
        if holder not in holders:
            holders.append(holder)
    records = [{"for": ", ".join(holders), **resolved} for resolved, holders in by_content.values()]
    caption = "The protocol, as it was resolved for each model and dataset."
    return _by_setting("protocol", caption, "setting", records)


def _by_setting(name: str, caption: str, heading: str, records: Sequence[Record]) -> Table | None:
    """A row each key; one column where all records agree on it, else one each record."""
    if not records:
        return None
    keys = list(dict.fromkeys(key for record in records for key in record))
    if len(records) == 1:
        columns: tuple[Column, ...] = (Column(heading), Column("value"))
    else:
        several = (Column(str(i + 1), "differs") for i in range(len(records)))
        columns = (Column(heading), Column("all"), *several)
    body: list[tuple[Entry, ...]] = []
    for key in keys:
        entries = [_plain(record.get(key)) for record in records]
        if len(entries) == 1:
            body.append((Entry(key), entries[0]))
        elif len(set(entries)) == 1:
            body.append((Entry(key), entries[0], *(Entry("") for _ in entries)))
        else:
            body.append((Entry(key), Entry(""), *entries))
    return Table(name, caption, columns, tuple(body))


def _flat(record: Record, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _distinct(records: Sequence[Record]) -> list[Record]:
    return list({json.dumps(record, sort_keys=True): record for record in records}.values())


def _plain(value: Any) -> Entry:
    if value is None:
        return Entry("none")
    if isinstance(value, list):
        return Entry(", ".join(map(str, value)) or "none")
    order = float(value) if isinstance(value, int | float) else None
    return Entry(str(value), order)
