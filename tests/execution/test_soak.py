"""Hundreds of small cells, whose processes are killed at random."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import commands
import pytest
from rows import OBSERVATION_COLUMNS
from tiny import TINY

import bench
from bench.store.inspection import inspect

CELLS = 250
KILLS = 6
METRICS = ["parameter_count", "reconstruction_loss"]
SMALL = '''
import torch
from toys import Steady


class Small(Steady):
    """A picture that is pulled towards the images."""

    def training_step(self, images, step):
        with torch.no_grad():
            self.image.lerp_(images.mean(0) + 0.1 * torch.randn_like(self.image), 0.5)
        return {"loss": 1.0}
'''


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks up processes in /proc")
def test_all_rows_are_there_exactly_once_whatever_was_killed(plugins, tmp_path):
    plugins("plugin_small", SMALL, models={"small": "plugin_small:Small"})
    out, draws, how = tmp_path / "run", random.Random(0), {"paths": [tmp_path / "site"]}
    settings = [part for setting in TINY for part in ("--set", setting)]
    seeds = ",".join(map(str, range(CELLS)))
    flags = ["run", "--models", "small", "--seeds", seeds, *settings, "--jobs", "2",
             "--checkpoint-every", "0.05s", "--out", out]  # fmt: skip
    kills = 0
    while kills < KILLS:
        with commands.started(*flags, metrics=METRICS, told=subprocess.DEVNULL, **how) as process:
            while process.poll() is None and kills < KILLS:
                time.sleep(4 + 4 * draws.random())
                victim = draws.choice([process.pid, *children(process.pid)])
                if process.poll() is None:
                    os.kill(victim, signal.SIGKILL)
                    kills += 1
    deadline = time.monotonic() + 4 * commands.PATIENCE
    while (code := finish(flags, how)) == 1:
        assert time.monotonic() < deadline
    assert code == 0
    rows = bench.load_results(out)
    assert not rows.duplicated(OBSERVATION_COLUMNS).any()
    assert set(rows["status"]) == {"ok"}
    counts = rows[rows["model"] == "small"].groupby("metric")["seed"].agg(["nunique", "size"])
    assert counts.loc[METRICS].values.tolist() == [[CELLS, CELLS]] * len(METRICS)
    assert inspect(out) == []


def children(pid):
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def finish(flags, how):
    """The exit code of a last run, which nobody kills; 1 if cells failed by an earlier kill."""
    with commands.started(*flags, metrics=METRICS, told=subprocess.DEVNULL, **how) as process:
        process.communicate(timeout=4 * commands.PATIENCE)
        return process.returncode
