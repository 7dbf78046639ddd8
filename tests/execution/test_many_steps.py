"""A sampler of many steps: its evaluations, and its samples after an interruption."""

import io

import commands
import pytest
from rich.console import Console
from rows import reproducible

import bench
from bench.system import progress
from bench.system.progress import LineReporter

STEPPING = """
import os
import signal

import torch
from torch import nn
from toys import Steady


class Stepping(Steady):
    capabilities = frozenset({"sample"})

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.network = nn.Linear(image_shape[-1], image_shape[-1])

    def sampling_network(self):
        return self.network

    def sample(self, n, generator):
        if os.environ.get("LOG"):
            with open(os.environ["LOG"], "a") as file:
                file.write(f"{n} ")
        if os.environ.get("KILL_AT") == str(n):
            os.kill(os.getpid(), signal.SIGKILL)
        images = torch.randn((n, *self.image.shape), generator=generator, device=generator.device)
        for _ in range(7):
            images = self.network(images)
        return images.clamp(-1, 1)
"""


def test_every_evaluation_and_its_operations_count(plugins, tiny, tmp_path):
    plugins("plugin_stepping", STEPPING, models={"stepping": "plugin_stepping:Stepping"})
    metrics = "network_evaluations,synaptic_operations_dense"
    rows = bench.run("stepping,ann_vae", settings=tiny, metrics=metrics, out=tmp_path / "run")
    rows = rows[rows["split"].fillna("generated") == "generated"].set_index(["model", "metric"])
    counted = rows.loc[("stepping", "network_evaluations")]
    # They are recorded in the first batch of the evaluation.
    assert (counted["value"], counted["n"]) == (7, 7)
    operations = rows.loc[("stepping", "synaptic_operations_dense")]
    # A line of 32 pixels is multiplied by a matrix, 32 lines an image.
    assert operations["value"] == 7 * 32**3
    one_pass = rows.loc[("ann_vae", "network_evaluations")]
    assert one_pass["status"] == "not_applicable"
    assert one_pass["reason"] == "the model samples in one pass"


def test_progress_within_a_batch_of_samples(plugins, tiny, tmp_path, monkeypatch):
    plugins("plugin_stepping", STEPPING, models={"stepping": "plugin_stepping:Stepping"})
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1)
    shown = io.StringIO()
    settings = [*tiny, "generated_images=12"]
    bench.run("stepping", settings=settings, metrics="network_evaluations", out=tmp_path / "run",
              jobs=1, reporter=LineReporter(Console(file=shown, width=200)))  # fmt: skip
    lines = [line.split(": ")[1] for line in shown.getvalue().splitlines() if "sampling" in line]
    # Batches of 7 and 5 samples, each of which takes 7 evaluations.
    assert lines == [
        *(f"sampling 0/12, step {i} of the next samples" for i in range(1, 8)),
        "sampling 7/12",
        *(f"sampling 7/12, step {i}/7 of the next samples" for i in range(1, 8)),
        "sampling 12/12",
    ]


@pytest.mark.full
def test_finished_batches_outlive_an_interruption(
    plugins, tiny_flags, bench_cli, tmp_path, monkeypatch
):
    plugins("plugin_stepping", STEPPING, models={"stepping": "plugin_stepping:Stepping"})
    flags = ["run", "--models", "stepping", *tiny_flags]
    flags += ["--metrics", "fad,network_evaluations", "--set", "generated_images=18"]
    code, _, err = bench_cli(*flags, "--out", tmp_path / "whole")
    assert code == 0, err
    again, log = [*flags, "--out", tmp_path / "killed"], tmp_path / "log"
    # Batches of 7, 7 and 4 samples, of which the last one is not finished.
    monkeypatch.setenv("KILL_AT", "4")
    code, _, _ = commands.run(*again, paths=[tmp_path / "site"])
    assert code != 0
    assert len(list(tmp_path.glob("killed/cells/stepping*/samples-*"))) == 1
    monkeypatch.setenv("KILL_AT", "")
    monkeypatch.setenv("LOG", str(log))
    code, _, err = bench_cli(*again)
    assert code == 0, err
    # The first one is drawn again, as its activity is recorded.
    assert log.read_text().split()[-2:] == ["7", "4"]
    assert not list(tmp_path.glob("*/cells/stepping*/samples-*"))
    rows = [reproducible(bench.load_results(tmp_path / name)) for name in ("whole", "killed")]
    assert rows[0].equals(rows[1])


def test_damaged_samples_are_drawn_again(plugins, tiny_flags, bench_cli, tmp_path, monkeypatch):
    plugins("plugin_stepping", STEPPING, models={"stepping": "plugin_stepping:Stepping"})
    flags = ["run", "--models", "stepping", *tiny_flags, "--out", tmp_path / "run"]
    flags += ["--metrics", "fad", "--set", "generated_images=18"]
    monkeypatch.setenv("KILL_AT", "4")
    code, _, _ = commands.run(*flags, paths=[tmp_path / "site"])
    assert code != 0
    (kept,) = tmp_path.glob("run/cells/stepping*/samples-*")
    kept.write_bytes(kept.read_bytes()[:-1])
    monkeypatch.setenv("KILL_AT", "")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    code, _, err = bench_cli(*flags)
    assert code == 0, err
    assert (tmp_path / "log").read_text().split()[-3:] == ["7", "7", "4"]
    assert not kept.exists()
