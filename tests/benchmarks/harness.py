"""Overhead of the harness in training, growth of its cost, and start-up time of the commands."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

import bench
from bench.model import Step
from bench.protocol import load_protocol
from bench.registry import backends, models
from bench.system.memory import keep_freed_memory
from bench.system.progress import WorkReporter
from bench.training.loop import BestEpochs, train
from bench.training.training_log import TrainingLog

TURNS = 5
IMAGES = 100
SETTINGS = ("latent_size=32", "batch_size=32", "time_steps=8")
SIZES = (1, 2, 4)


def training_loop():
    """Yield the duration of an epoch in the harness, relative to its training steps.

    The steps are timed twice: alone, on batches that are ready, and within the same epoch, where
    other processes of the machine disturb both sides equally.
    """
    keep_freed_memory()
    for name in ("ann_vae", "esvae"):
        images = torch.randint(0, 256, (1280, 1, 32, 32), dtype=torch.uint8)
        _in_harness(name, images)
        turns = [(*_in_harness(name, images), _bare(name, images)) for _ in range(TURNS)]
        alone = median(epoch / bare for epoch, _, bare in turns)
        within = median(epoch / steps for epoch, steps, _ in turns)
        yield f"{name}: an epoch in the harness / its training steps alone", "1", alone
        yield f"{name}: an epoch in the harness / the training steps within it", "1", within


def growth():
    """Yield durations at larger T and with more images and cells, relative to the smallest."""
    keep_freed_memory()
    yield from _growth("training, time steps 4, 8, 16", _by_time_steps)
    yield from _growth("training, 640 images and twice, four times as many", _by_training_images)
    with tempfile.TemporaryDirectory() as folder:
        yield from _growth(
            f"evaluation, {IMAGES} images and twice, four times as many",
            lambda times: _run(Path(folder) / f"images{times}", IMAGES * times, 1),
        )
        yield from _growth(
            "a run of 1, 2 and 4 cells",
            lambda times: _run(Path(folder) / f"cells{times}", IMAGES, times),
        )


def start_up():
    """Yield the seconds of commands that need no model: the fastest of several calls."""
    for arguments in (["--help"], ["ls", "models"], ["ls", "protocols"]):
        command = [sys.executable, "-c", "from bench.cli import main; main()", *arguments]
        yield f"bench {' '.join(arguments)}", "s", min(_seconds_of(command) for _ in range(TURNS))


def _in_harness(name, images):
    """Return the seconds of an epoch, and of the training steps within it."""
    model, protocol = _built(name, 8)
    steps = _timed_steps(model)
    best = BestEpochs(lambda model: {})
    log = TrainingLog(WorkReporter())
    record = train(model, images, protocol, seed=0, best=best, log=log)
    return record.epochs[0].seconds, sum(steps)


def _timed_steps(model):
    """Return a list to which each training step of the model appends its seconds."""
    seconds, step = [], model.training_step

    def timed(*arguments):
        started = time.perf_counter()
        losses = step(*arguments)
        seconds.append(time.perf_counter() - started)
        return losses

    model.training_step = timed
    return seconds


def _bare(name, images):
    model, protocol = _built(name, 8)
    batches = (images.float() / 255 * 2 - 1).split(protocol.batch_size)
    model.train()
    started = time.perf_counter()
    for i, batch in enumerate(batches):
        model.training_step(batch, Step(i / len(batches), len(batches)))
    return time.perf_counter() - started


def _built(name, time_steps):
    settings = [*SETTINGS, "epochs=1", f"time_steps={time_steps}"]
    protocol = load_protocol("smoke", settings).resolve(name, "random")
    model_class = models.load(name)
    backend = backends.load("fused")() if model_class.spiking else None
    torch.manual_seed(0)
    return model_class((1, 32, 32), protocol, backend), protocol


def _growth(what, seconds_at):
    """Measure the sizes in turn, so that other processes disturb all of them equally."""
    seconds_at(SIZES[0])
    turns = [[seconds_at(times) for times in SIZES] for _ in range(TURNS)]
    for i, times in enumerate(SIZES[1:], start=1):
        ratio = median(turn[i] / turn[0] for turn in turns)
        yield f"{what}: {times} times the size", "times", ratio


def _by_time_steps(times):
    model, _ = _built("esvae", 4 * times)
    return _epoch_seconds(model, 640)


def _by_training_images(times):
    model, _ = _built("esvae", 8)
    return _epoch_seconds(model, 640 * times)


def _epoch_seconds(model, images):
    batches = (torch.rand((images, 1, 32, 32)) * 2 - 1).split(32)
    started = time.perf_counter()
    for batch in batches:
        model.training_step(batch, Step(0.5, len(batches)))
    return time.perf_counter() - started


def _run(folder, images, cells):
    """Return the seconds of a run whose cells train one step and evaluate ``images`` images."""
    data = folder.with_suffix(".npz")
    if not data.exists():
        generator = np.random.default_rng(0)
        shape = (images, 32, 32)
        pixels = generator.integers(0, 256, (2, *shape), dtype=np.uint8)
        np.savez(data, train_images=pixels[0], test_images=pixels[1])
    sizes = [
        f"{name}={images}"
        for name in ("generated_images", "latent_images", "noise_images", "time_step_images")
    ]
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        bench.run(
            models=["esvae"],
            backends=["fused"],
            datasets=[f"random={data}"],
            settings=[*SETTINGS, *sizes, "epochs=1", "train_images=32", "autoencoder_epochs=1"],
            seeds=range(cells),
            out=out,
        )
        return time.perf_counter() - started


def _seconds_of(command):
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


BENCHMARKS = (start_up, training_loop, growth)
