"""The command that makes the numbers of a model again, checked against the protocol's hash."""

import json
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pydantic import ValidationError

from bench.errors import BenchError
from bench.protocol import OTHER_MODEL, UNHASHED, Protocol, builtin_protocols, load_protocol
from bench.report.page.figures import File
from bench.report.page.model_tables import short_protocol
from bench.report.page.provenance import Records
from bench.store.other_neurons import without_mark
from bench.store.schema import EXTERNAL, NO_BACKEND
from bench.system.formatting import short_hash
from bench.system.paths import safe_name

SCORED = (
    "Images or weights that exist were scored with bench score, so no command of the suite makes "
    "them."
)
# A setting in a protocol's name, such as ``+epochs=3``.
_SETTING = re.compile(r"\+(?=[\w.]+=)")


@dataclass(frozen=True)
class Rerun:
    """The command for the numbers of a model on one dataset under one protocol.

    Attributes:
        title: dataset and protocol.
        command: the command; "" if there is none.
        remark: what else the command needs; "" for nothing.
        protocol: values of the protocol as resolved for the model and dataset; None if unknown.
        file: the protocol as a file that the command reads; None if it needs none.
    """

    title: str
    command: str
    remark: str
    protocol: Protocol | None
    file: File | None = None


def rerun(rows: pd.DataFrame, records: Records) -> Rerun:
    """Return how to make rows again.

    Args:
        rows: rows of one model, dataset, protocol, hash of it and device, whose backends have the
            same seeds.
        records: commands and cells of the run.
    """
    first = rows.iloc[0]
    model, dataset, name = (str(first[key]) for key in ("model", "dataset", "protocol"))
    title = f"{dataset}, protocol {short_protocol(name)}"
    about = records.about(set(rows["cell_key"]))
    recorded = _recorded(about)
    if EXTERNAL in set(rows["backend"]) or _scored(rows):
        return Rerun(title, "", SCORED, recorded)
    base, *settings = _SETTING.split(name.removesuffix(OTHER_MODEL))
    wanted = str(first["protocol_hash"])

    def command(*protocol: str) -> str:
        words = ["bench", "run", "--models", model, *_backends(rows)]
        words += ["--datasets", _dataset(dataset, about), *protocol]
        seeds = ",".join(str(seed) for seed in sorted(rows["seed"].dropna().unique()))
        return shlex.join([*words, "--seeds", seeds, *_requested(rows, about)])

    plain = command("--protocol", base, *(word for text in settings for word in ("--set", text)))
    built_in = _built_in(base, settings, model, dataset)
    if built_in is not None and built_in.hash == wanted:
        return Rerun(title, plain, "", built_in)
    if recorded is not None and recorded.hash == wanted:
        file = _file(recorded, name)
        if _read_again(file, model, dataset) == wanted:
            remark = f"{file.name} has the values of the protocol for this model and dataset."
            return Rerun(title, command("--protocol", file.name), remark, recorded, file)
    versions = ", ".join(sorted({str(version) for version in rows["version"].dropna()}))
    remark = (
        f"The protocol {base} had the hash {short_hash(wanted)} when the suite "
        f"{versions or 'of that time'} ran it. This release does not know these values."
    )
    return Rerun(title, plain, remark, recorded)


def _scored(rows: pd.DataFrame) -> bool:
    """Return True if values were computed, and none of them with weights of a known epoch."""
    values = rows[rows["value"].notna()]
    return not values.empty and bool(values["epoch"].isna().all())


def _backends(rows: pd.DataFrame) -> list[str]:
    names = [without_mark(str(name)) for name in rows["backend"].unique() if name != NO_BACKEND]
    return ["--backends", ",".join(names)] if names else []


def _dataset(name: str, records: Records) -> str:
    """Return a dataset as the run's commands named it, which can include a path."""
    for record in records.commands:
        for given in (record.get("asked") or {}).get("datasets", []):
            if str(given).partition("=")[0] == name:
                return str(given)
    return name


def _requested(rows: pd.DataFrame, records: Records) -> list[str]:
    """Return further options of the last command: device, range of the pixels and metrics."""
    asked: Mapping[str, Any] = {}
    for record in records.commands:
        asked = record.get("asked") or {}
    on_cpu = set(rows["device"].dropna()) <= {"cpu"}
    words = ["--device", "cpu" if on_cpu else "cuda"]
    if asked.get("range"):
        words += ["--range", ",".join(map(str, asked["range"]))]
    if asked.get("metrics"):
        words += ["--metrics", ",".join(map(str, asked["metrics"]))]
    return words


def _recorded(records: Records) -> Protocol | None:
    """Return the resolved protocol that the cells recorded; None if this release cannot read it."""
    for cell in records.cells:
        try:
            return Protocol.model_validate(cell.get("resolved_protocol"))
        except ValidationError:
            return None
    return None


def _built_in(base: str, settings: list[str], model: str, dataset: str) -> Protocol | None:
    """Return a built-in protocol as resolved for a model and dataset; None if there is none.

    Args:
        base: name of the protocol.
        settings: changed values, each as ``key=value``.
        model: name of the model.
        dataset: name of the dataset.
    """
    if base not in builtin_protocols():
        return None
    try:
        return load_protocol(base, settings).resolve(model, dataset)
    except BenchError:
        return None


def _file(protocol: Protocol, name: str) -> File:
    """Return a protocol as a TOML file, with the values that are not the defaults."""
    values = protocol.model_dump(mode="json", exclude_defaults=True, exclude=set(UNHASHED))
    lines = [f"{key} = {_toml(value)}" for key, value in {"name": name, **values}.items()]
    return File(f"{safe_name(name)}.toml", "\n".join([*lines, ""]).encode(), "application/toml")


def _read_again(file: File, model: str, dataset: str) -> str:
    """Return the hash of the protocol in a file for a model and dataset; "" if it is none."""
    try:
        protocol = Protocol.model_validate(tomllib.loads(file.content.decode()))
    except (tomllib.TOMLDecodeError, ValidationError):
        return ""
    return protocol.resolve(model, dataset).hash


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(k)} = {_toml(v)}' for k, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)
