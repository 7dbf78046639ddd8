"""Run directories as the store leaves them, with rows of a test's own making."""

import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from bench.store.run_directory import CellFolder, RunDirectory, frame
from bench.store.schema import SCHEMA_VERSION

SCRIPT = "<script>alert(1)</script>"
ODD = "$x_1$ & | * _"
DEFAULTS = {
    "schema_version": SCHEMA_VERSION,
    "run_id": "r",
    "model_version": "1",
    "backend": "torch",
    "dataset": "digits",
    "dataset_variant": "complete",
    "dataset_fingerprint": "f" * 64,
    "train_images": 100,
    "protocol": "smoke",
    "protocol_hash": "a" * 64,
    "epoch": 2,
    "epoch_selection": "last",
    "split": "test",
    "metric_version": "1",
    "n": 20,
    "status": "ok",
    "higher_is_better": False,
    "unit": "1",
    "device": "cpu",
    "version": "1.0",
    "git_commit": "c0ffee",
    "created_at": "2026-01-01T00:00:00+00:00",
}


def row(model="vae", seed=0, metric="reconstruction_loss", value=0.5, **changes):
    """A row of the store; its cell is that of its model, backend, dataset, protocol and seed."""
    content = DEFAULTS | {"model": model, "seed": seed, "metric": metric, "value": value}
    content |= changes
    names = ("model", "backend", "dataset", "protocol_hash", "seed")
    key = "-".join(str(content[name]) for name in names)
    return {"cell_key": f"{zlib.crc32(key.encode()):016x}", **content}


def failed(reason, **changes):
    """A row without a number."""
    absent = {"value": None, "n": None, "split": None, "status": "failed", "reason": reason}
    return row(**absent | changes)


def write_run(path, rows, planned=()):
    """A run directory of these rows, whose cells have images, settings and a training history."""
    path = Path(path)
    table = frame(rows)
    keys = list(dict.fromkeys([*table["cell_key"], *planned]))
    directory = RunDirectory(path)
    command = {"run_id": "r", "started_at": "2026-01-01", "asked": {"models": [SCRIPT]}}
    directory.begin(command | {"cells": keys, "environment": {"python": "3.11", "git_commit": "c"}})
    for i, (key, cell) in enumerate(table.groupby("cell_key", sort=False)):
        folder = path / "cells" / f"cell{i}-{key}"
        _write_cell(folder, key, cell)
    directory.collect()
    return path


def _write_cell(folder, key, rows):
    first = rows.iloc[0]
    (folder / "images").mkdir(parents=True)
    CellFolder(folder).write_rows(rows)
    resolved = {"epochs": 2, "models": {first["model"]: {"k": 3}}}
    content = {
        "key": key,
        "model": first["model"],
        "backend": first["backend"],
        "neuron_implementation": None,
        "dataset": {"name": first["dataset"], "fingerprint": "f" * 64, "train_size": 100},
        "device": "cpu",
        "resolved_protocol": resolved,
        "environment": {"python": "3.11"},
    }
    (folder / "cell.json").write_text(json.dumps(content))
    pixels = np.random.default_rng(0).integers(0, 256, (34, 68, 3), dtype=np.uint8)
    for name in ("inputs", "reconstructions", "samples"):
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
