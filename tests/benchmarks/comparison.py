"""How long the gate takes for two runs of 200 cells."""

import tempfile
import time
from pathlib import Path

import numpy as np

from bench.comparison import Policy, compare
from bench.comparison.output.junit import to_junit
from bench.comparison.output.markdown import to_markdown
from bench.store.declarations import declared
from bench.store.run_directory import RunDirectory, frame, load_results

CELLS, SEEDS = 200, 5
METRICS, LAYERS, STEPS = 50, 10, 16


def gate():
    """Seconds to load two generated runs, compare them, and write both reports."""
    with tempfile.TemporaryDirectory() as folder:
        here, reference = (_write(Path(folder) / name, i) for i, name in enumerate("ab"))
        started = time.perf_counter()
        tables = load_results(here), load_results(reference)
        loaded = time.perf_counter()
        comparison = compare(*tables, Policy(declared(reference) | declared(here)))
        compared = time.perf_counter()
        to_markdown(comparison), to_junit(comparison)
        written = time.perf_counter()
    yield "gate, 2 x 200 cells: rows of each", "1", float(len(tables[0]))
    yield "gate, 2 x 200 cells: load", "s", loaded - started
    yield "gate, 2 x 200 cells: compare", "s", compared - loaded
    yield "gate, 2 x 200 cells: Markdown and JUnit XML", "s", written - compared
    yield "gate, 2 x 200 cells: all of it", "s", written - started


def _write(path, seed):
    """A run directory of whole-model rows, and of rates by layer and time step."""
    generator = np.random.default_rng(seed)
    rows = [row for i in range(CELLS) for row in _cell(i // SEEDS, i % SEEDS, generator)]
    metrics = {f"metric_{i}": {"tolerance": 0.05, "reproducible": True} for i in range(METRICS)}
    RunDirectory(path).begin({"metrics": metrics})
    frame(rows).to_parquet(path / "results.parquet", index=False)
    return path


def _cell(group, seed, generator):
    shared = {
        "schema_version": 2,
        "cell_key": f"{group}-{seed}",
        "model": f"model_{group % 8}",
        "backend": "reference",
        "dataset": f"dataset_{group // 8}",
        "dataset_fingerprint": "f" * 64,
        "train_images": 60_000,
        "protocol": "standard",
        "protocol_hash": "a" * 64,
        "seed": seed,
        "epoch_selection": "last",
        "metric_version": "1",
        "n": 10_000,
        "status": "ok",
        "unit": "1",
        "created_at": "2026-01-01T00:00:00+00:00",
    }
    places = [{"metric": f"metric_{i}", "split": "test"} for i in range(METRICS)]
    places += [
        {"metric": "firing_rate", "split": "test", "layer": f"layer_{layer}", "time_step": step}
        for layer in range(LAYERS)
        for step in range(1, STEPS + 1)
    ]
    for place in places:
        value = generator.normal(10.0, 0.5)
        interval = {"value": value, "ci_low": value - 0.1, "ci_high": value + 0.1}
        direction = None if place["metric"] == "firing_rate" else False
        yield {**shared, **place, **interval, "higher_is_better": direction}


BENCHMARKS = (gate,)
