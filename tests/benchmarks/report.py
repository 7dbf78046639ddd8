"""Duration, peak memory and file size of the report of a large run."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from bench import registry
from bench.store.declarations import MetricDeclaration, record
from bench.store.run_directory import CellFolder, RunDirectory, frame
from bench.store.schema import SCHEMA_VERSION
from bench.system.files import write_json

MODELS = {"ann_vae": ("torch",), "fsvae": ("reference", "snntorch"), "esvae": ("reference",)}
DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10", "celeba")
SEEDS = 10
SINGLE = ("reconstruction_loss", "ssim", "psnr", "fad", "energy", "parameter_count", "footprint")
GENERATED = {"fad", "energy"}
LAYERS, TIME_STEPS = 12, 8
COMMAND = """
import atexit
from bench.cli import main
from peak import own_peak

atexit.register(lambda: print(own_peak()))
main()
"""
LEVELS = np.arange(1, 7) / 20


def report_of_a_large_run():
    """Yield the seconds and peak memory of ``bench report`` on 200 cells of 150 rows each."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        cells, rows = generate(path)
        seconds, memory = _report(path)
        yield f"report, {cells} cells, {rows:,} rows", "s", seconds
        yield "its peak memory", "MiB", memory
        yield "its size", "MiB", (path / "report.html").stat().st_size / 2**20


def generate(path):
    """Write a run directory; return its number of cells and of rows."""
    generator = np.random.default_rng(0)
    directory = RunDirectory(path)
    cells = [
        (model, backend, dataset, seed)
        for model, backends in MODELS.items()
        for backend in backends
        for dataset in DATASETS
        for seed in range(SEEDS)
    ]
    keys = [f"{i:016x}" for i in range(len(cells))]
    names = {observation["metric"] for observation in _observations(generator)}
    metrics = {name: asdict(MetricDeclaration()) for name in names}
    metrics |= record({name: registry.metrics.load(name) for name in names & {*SINGLE}})
    command = {"run_id": "r", "started_at": "now", "asked": {}, "cells": keys}
    directory.begin(command | {"metrics": metrics})
    for key, cell in zip(keys, cells, strict=True):
        _write_cell(path / "cells" / f"{'-'.join(map(str, cell))}-{key}", key, cell, generator)
    return len(cells), len(directory.collect())


def _write_cell(folder, key, cell, generator):
    model, backend, dataset, seed = cell
    rows = [_row(key, cell) | changes for changes in _observations(generator)]
    CellFolder(folder).write_rows(frame(rows))
    info = {"name": dataset, "fingerprint": dataset * 5, "train_size": 100, "test_size": 50}
    write_json(
        folder / "cell.json",
        {"key": key, "model": model, "backend": backend, "dataset": info, "seed": seed}
        | {"device": "cpu", "resolved_protocol": {"epochs": 50, "time_steps": TIME_STEPS}},
    )
    losses = [{"losses": {"loss": 1 / (i + 1)}, "images": 100, "seconds": 1.0} for i in range(50)]
    write_json(folder / "training.json", {"epochs": losses, "selected": {"last": 50}})
    pixels = generator.integers(0, 256, (138, 274, 3), dtype=np.uint8)
    (folder / "images").mkdir()
    _write_arrays(folder, generator)
    Image.fromarray(pixels).save(folder / "images" / "inputs.png")
    for name in ("reconstructions", "samples"):
        shutil.copy(folder / "images" / "inputs.png", folder / "images" / f"{name}.png")


def _write_arrays(folder, generator):
    images = {
        name: generator.integers(0, 256, (32, 1, 32, 32), dtype=np.uint8)
        for name in ("inputs", "reconstructions", "samples", "latent_shuffle")
    }
    flipped = generator.integers(0, 256, (6, 32, 1, 32, 32), dtype=np.uint8)
    np.savez(folder / "images.npz", latent_flip=flipped, latent_flip_levels=LEVELS, **images)
    trains = {name: generator.random((16, 32, 128)) < 0.2 for name in ("posterior", "prior")}
    np.savez(folder / "spikes.npz", **trains)


def _row(key, cell):
    model, backend, dataset, seed = cell
    return {
        **{"schema_version": SCHEMA_VERSION, "run_id": "r", "cell_key": key, "model": model},
        **{"model_version": "1", "backend": backend, "dataset": dataset, "seed": seed},
        **{"dataset_variant": "complete", "dataset_fingerprint": dataset * 5, "split": "test"},
        **{"train_images": 100, "protocol": "p", "protocol_hash": "a" * 64, "epoch": 50},
        **{"epoch_selection": "last", "metric_version": "1", "n": 1000, "status": "ok"},
        **{"higher_is_better": False, "unit": "1", "device": "cpu", "version": "1"},
    }


def _observations(generator):
    """Return 150 observations: of whole models, by layer, by time step, by both, under noise."""
    places = [{"metric": name} for name in SINGLE]
    for place in places:
        place["split"] = "generated" if place["metric"] in GENERATED else "test"
    rate = {"metric": "firing_rate"}
    places += [rate, *(rate | {"time_step": t} for t in range(1, TIME_STEPS + 1))]
    for i in range(LAYERS):
        layer = rate | {"layer": f"encoder.layer{i}"}
        places += [layer, *(layer | {"time_step": t} for t in range(1, TIME_STEPS + 1))]
    places += [
        {"metric": "noise_robustness", "noise_kind": kind, "noise_level": float(level)}
        for kind in ("latent_flip", "input_gaussian")
        for level in LEVELS
    ]
    places += [
        {"metric": "reconstruction_loss_by_time_step", "time_step": t}
        for t in range(1, TIME_STEPS + 1)
    ]
    places += [{"metric": f"of_mine_{i}"} for i in range(150 - len(places))]
    return [place | {"value": float(generator.normal(1, 0.1))} for place in places]


def _report(path):
    """Return the seconds of the whole command, and its peak memory in MiB."""
    started = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, "-c", COMMAND, "report", str(path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return time.perf_counter() - started, float(ran.stdout.split()[-1])


BENCHMARKS = (report_of_a_large_run,)
