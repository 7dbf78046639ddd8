"""Training, reconstruction and sampling against the naive implementation of the same equations.

Each implementation has a process of its own; they take turns, call by call, so that what else the
machine does meets all of them. A ratio is the median over the turns.
"""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import median

import naive
import torch

from baselines.convolutions import Downsampling, Upsampling
from bench.allocator import keep_freed_memory
from bench.devices import PeakMemory
from bench.model import Step
from bench.protocol import load_protocol
from bench.registry import backends, models

IMAGE_SHAPE = (3, 32, 32)
BATCHES = (32, 128)
TURNS = 5
ACTIVITIES = ("training", "reconstruction", "sampling")
MODELS = {
    "esvae": ("esvae", ()),
    "fsvae": ("fsvae", ("models.fsvae.posterior_statistics=running",)),
    "fsvae, prefix statistics": ("fsvae", ("models.fsvae.posterior_statistics=prefix",)),
}
# Name: backend, precision, whether freed memory is kept. The first is what the others are held to.
KINDS = {
    "naive": ("naive", "float32", False),
    "naive, freed memory kept": ("naive", "float32", True),
    "reference": ("reference", "float32", True),
    "snntorch": ("snntorch", "float32", True),
    "spikingjelly": ("spikingjelly", "float32", True),
    "fused": ("fused", "float32", True),
    "fused, bfloat16": ("fused", "bfloat16", True),
}

_subject = None


def speed_against_naive():
    """Images a second, their ratios to the naive ones, and peak memory, on CIFAR-10's shape."""
    for model in MODELS:
        for batch in BATCHES:
            yield from _compared(model, batch)


def convolutions_alone():
    """Images a second that the convolutions of ESVAE allow, forward and backward, and forward."""
    keep_freed_memory()
    for precision in ("float32", "bfloat16"):
        for batch in BATCHES:
            seconds = _convolution_seconds(precision, batch)
            for what, value in zip(
                ("training", "reconstruction", "sampling"), seconds, strict=True
            ):
                yield (
                    f"convolutions alone, {precision}, batch {batch}: {what}",
                    "images/s",
                    batch / value,
                )


def _compared(model, batch):
    spawn = multiprocessing.get_context("spawn")
    pools = {kind: ProcessPoolExecutor(1, mp_context=spawn) for kind in KINDS}
    try:
        for kind, pool in pools.items():
            pool.submit(_prepare, model, kind, batch).result()
        for activity in ACTIVITIES:
            turns = {kind: [] for kind in KINDS}
            for _ in range(TURNS):
                for kind, pool in pools.items():
                    turns[kind].append(pool.submit(_timed, activity).result())
            yield from _rows(f"{model}, batch {batch}, {activity}", batch, turns)
        memory = {kind: pool.submit(_memory).result() for kind, pool in pools.items()}
        for kind, peak in memory.items():
            yield f"{model}, batch {batch}, peak memory: {kind}", "MiB", peak / 2**20
            if kind != "naive":
                yield (
                    f"{model}, batch {batch}, peak memory: {kind} / naive",
                    "1",
                    peak / memory["naive"],
                )
        found = {kind: pool.submit(_results).result() for kind, pool in pools.items()}
        for kind in ("fused", "fused, bfloat16"):
            difference = abs(found[kind] / found["naive"] - 1)
            yield f"{model}, batch {batch}, loss: {kind} against naive", "1", difference
    finally:
        for pool in pools.values():
            pool.shutdown()


def _rows(what, batch, turns):
    for kind, seconds in turns.items():
        yield f"{what}: {kind}", "images/s", batch / median(seconds)
    for kind, seconds in turns.items():
        if kind != "naive":
            ratios = [slow / fast for slow, fast in zip(turns["naive"], seconds, strict=True)]
            yield f"{what}: {kind} / naive", "1", median(ratios)


class _Subject:
    """One implementation of one model, with the weights that they all have."""

    def __init__(self, model, kind, batch):
        backend, precision, kept = KINDS[kind]
        if kept:
            keep_freed_memory()
        name, settings = MODELS[model]
        protocol = load_protocol("standard", [*settings, f"precision={precision}"])
        torch.manual_seed(0)
        built = models.load(name)(
            IMAGE_SHAPE,
            protocol.resolve(name, "cifar10"),
            backends.load("reference" if backend == "naive" else backend),
        )
        self.naive = backend == "naive"
        self.model = (
            {"esvae": naive.ESVAE, "fsvae": naive.FSVAE}[name](built) if self.naive else built
        )
        self.batch = batch
        self.images = torch.rand((batch, *IMAGE_SHAPE)) * 2 - 1
        self.memory = PeakMemory(torch.device("cpu"))
        self.before = self.memory.bytes()

    def run(self, activity):
        self._switch(activity == "training")
        if activity == "training":
            step = 0.5 if self.naive else Step(0.5, 10)
            self.model.training_step(self.images, step)
            return
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            if activity == "sampling":
                self.model.sample(self.batch, generator)
            else:
                self.model.reconstruct(self.images, generator)

    def loss(self):
        self._switch(True)
        step = 0.5 if self.naive else Step(0.5, 10)
        torch.manual_seed(0)
        return self.model.losses(self.images, step, None)["loss"].item()

    def _switch(self, training):
        if self.naive:
            self.model.training = training
        else:
            self.model.train(training)


def _prepare(model, kind, batch):
    """Build the process's subject; its loss before any training, to compare."""
    global _subject, _loss
    _subject = _Subject(model, kind, batch)
    _loss = _subject.loss()
    for activity in ACTIVITIES:
        _subject.run(activity)


def _timed(activity):
    started = time.perf_counter()
    _subject.run(activity)
    return time.perf_counter() - started


def _memory():
    return _subject.memory.bytes() - _subject.before


def _results():
    return _loss


def _convolution_seconds(precision, batch):
    """Seconds for a step of training, of reconstruction and of sampling, convolutions only."""
    protocol = load_protocol("standard").resolve("esvae", "cifar10")
    model = models.load("esvae")(IMAGE_SHAPE, protocol, backends.load("fused"))
    calls = []
    for part in (model.encoder, model.decoder):
        for layer in part.modules():
            if isinstance(layer, (Downsampling, Upsampling)):
                layer.register_forward_hook(partial(_call, calls, part))
    with torch.no_grad():
        model.reconstruct(torch.rand((batch, *IMAGE_SHAPE)), torch.Generator())
    found = calls.copy()
    forward, both = {}, 0.0
    for part, layer, inputs in found:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            seconds, trained = _forward_and_backward(layer, inputs)
        forward[part] = forward.get(part, 0.0) + seconds
        both += trained
    return both, sum(forward.values()), forward[model.decoder]


def _call(calls, part, layer, inputs, _output):
    calls.append((part, layer, inputs[0]))


def _forward_and_backward(layer, inputs):
    inputs = inputs.clone().requires_grad_(inputs.shape[1] > 3)
    forward, both = [], []
    for _ in range(TURNS):
        started = time.perf_counter()
        with torch.no_grad():
            layer(inputs)
        forward.append(time.perf_counter() - started)
        started = time.perf_counter()
        outputs = layer(inputs)
        between = time.perf_counter()
        gradient = torch.ones_like(outputs)
        again = time.perf_counter()
        outputs.backward(gradient)
        both.append(time.perf_counter() - again + between - started)
    return median(forward), median(both)


BENCHMARKS = (convolutions_alone, speed_against_naive)
