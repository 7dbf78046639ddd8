"""Speed of training, reconstruction and sampling, compared with a naive implementation.

Each implementation has a process of its own. They take turns, so that other processes of the
machine disturb all of them equally. A turn lasts a second and repeats the call; caches are cold at
its beginning, after the turn of the other process. A ratio is the median over the turns.

All implementations start from the same weights and from settled running statistics. With the
initial statistics hardly any neuron fires in evaluation, which can be unrealistically fast.
"""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from statistics import median

import naive
import torch
from torch import nn

from bench.model import Step
from bench.protocol import load_protocol
from bench.registry import backends, models
from bench.system.devices import PeakMemoryMeter
from bench.system.memory import HUGE_PAGES, keep_freed_memory

IMAGE_SHAPE = (3, 32, 32)
BATCHES = (32, 128)
TURNS = 5
# Training passes after which running statistics differ from the currents' by at most 0.2 %.
SETTLING_PASSES = 60
SECONDS_OF_A_TURN = 1.0
ACTIVITIES = ("training", "reconstruction", "sampling")
MODELS = {
    "esvae": ("esvae", ()),
    "fsvae": ("fsvae", ("models.fsvae.posterior_statistics=running",)),
    "fsvae, prefix statistics": ("fsvae", ("models.fsvae.posterior_statistics=prefix",)),
}
SYNAPSES = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
NAIVE = "naive"
# By name: backend, precision, whether freed memory is kept.
KINDS = {
    NAIVE: ("naive", "float32", False),
    "naive, freed memory kept": ("naive", "float32", True),
    "reference": ("reference", "float32", True),
    "snntorch": ("snntorch", "float32", True),
    "spikingjelly": ("spikingjelly", "float32", True),
    "fused": ("fused", "float32", True),
}
PRECISIONS = ["float32"]
# Without hardware support, bfloat16 takes ten to thirty times as long.
if torch.cpu.get_capabilities().get("avx512_bf16"):
    KINDS["fused, bfloat16"] = ("fused", "bfloat16", True)
    PRECISIONS.append("bfloat16")
# The other kinds are slow and measured with the smallest batch only.
AT_ALL_BATCHES = ("fused", "fused, bfloat16")

_subject = None


def speed_against_naive():
    """Yield images per second, the ratio to the naive rate, and peak memory, on 3x32x32 images."""
    for model in MODELS:
        for batch in BATCHES:
            yield from _compared(model, batch)


def synapses_alone():
    """Yield the images per second of convolutions and linear layers alone, computed densely."""
    keep_freed_memory()
    for model in MODELS:
        for precision in PRECISIONS:
            for batch in BATCHES:
                for activity, rate in _synapse_rates(model, precision, batch).items():
                    what = f"{model}, batch {batch}, {activity}: synapses alone, {precision}"
                    yield what, "images/s", rate


def _compared(model, batch):
    for kind in KINDS:
        if kind in AT_ALL_BATCHES or (kind != NAIVE and batch == BATCHES[0]):
            yield from _against_naive(f"{model}, batch {batch}", model, kind, batch)


def _against_naive(what, model, kind, batch):
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as one, ProcessPoolExecutor(1, spawn) as other:
        state = _settled(model)
        losses = [
            pool.submit(_prepare, model, name, batch, state).result()
            for pool, name in ((one, NAIVE), (other, kind))
        ]
        for activity in ACTIVITIES:
            turns = [
                [pool.submit(_timed, activity).result() for pool in (one, other)]
                for _ in range(TURNS)
            ]
            slow, fast = (batch / median(seconds) for seconds in zip(*turns, strict=True))
            yield f"{what}, {activity}: naive beside {kind}", "images/s", slow
            yield f"{what}, {activity}: {kind}", "images/s", fast
            yield f"{what}, {activity}: ratio", "1", median(slow / fast for slow, fast in turns)
        peaks = [pool.submit(_memory).result() for pool in (one, other)]
        for of, slow, fast in zip(("process", "tensors"), *peaks, strict=True):
            yield f"{what}, peak memory of the {of}: naive", "MiB", slow / 2**20
            yield f"{what}, peak memory of the {of}: {kind}", "MiB", fast / 2**20
            yield f"{what}, peak memory of the {of}: ratio", "1", fast / slow
        yield f"{what}, loss: {kind} against naive", "1", abs(losses[1] / losses[0] - 1)


@lru_cache
def _settled(model):
    """Return the state of a model with random weights and settled running statistics."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_settle, model).result()


def _settle(model):
    keep_freed_memory()
    subject = _built(model, "fused", "float32", ("models.fsvae.posterior_statistics=running",))
    images = torch.rand((min(BATCHES), *IMAGE_SHAPE)) * 2 - 1
    with torch.no_grad():
        for _ in range(SETTLING_PASSES):
            subject.losses(images, Step(0.5, 10), None)
    return {name: value.numpy() for name, value in subject.state_dict().items()}


def _built(model, backend, precision, settings=()):
    """Build a model of the benchmark, with the same weights each time."""
    name, own = MODELS[model]
    protocol = load_protocol("standard", [*own, f"precision={precision}", *settings])
    torch.manual_seed(0)
    spiking = backends.load(backend)()
    return models.load(name)(IMAGE_SHAPE, protocol.resolve(name, "cifar10"), spiking)


class _Subject:
    """One implementation of one model, with the weights that all implementations share."""

    def __init__(self, model, kind, batch, state):
        backend, precision, kept = KINDS[kind]
        # Set before the first tensor, in place of an inherited value.
        os.environ[HUGE_PAGES] = "1" if kept else "0"
        if kept:
            keep_freed_memory()
        built = _built(model, "reference" if backend == "naive" else backend, precision)
        built.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
        self.naive = backend == "naive"
        self.model = (
            {"esvae": naive.ESVAE, "fsvae": naive.FSVAE}[MODELS[model][0]](built)
            if self.naive
            else built
        )
        self.batch = batch
        self.images = torch.rand((batch, *IMAGE_SHAPE)) * 2 - 1
        self._losses(self.images[:2]).backward()
        self.memory = PeakMemoryMeter(torch.device("cpu"))
        self.before = self.memory.bytes()

    def run(self, activity):
        self._switch(activity == "training")
        if activity == "training":
            self.model.training_step(self.images, self._step)
            return
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            if activity == "sampling":
                self.model.sample(self.batch, generator)
            else:
                self.model.reconstruct(self.images, generator)

    def loss(self):
        return self._losses(self.images).item()

    @property
    def _step(self):
        return 0.5 if self.naive else Step(0.5, 10)

    def _losses(self, images):
        self._switch(True)
        torch.manual_seed(0)
        return self.model.losses(images, self._step, None)["loss"]

    def _switch(self, training):
        if self.naive:
            self.model.training = training
        else:
            self.model.train(training)


def _prepare(model, kind, batch, state):
    """Build and warm up the subject of this process; return its loss before training."""
    global _subject
    _subject = _Subject(model, kind, batch, state)
    loss = _subject.loss()
    for activity in ACTIVITIES:
        _subject.run(activity)
    return loss


def _timed(activity):
    """Return the mean seconds of a call in one turn."""
    started, calls, seconds = time.perf_counter(), 0, 0.0
    while seconds < SECONDS_OF_A_TURN:
        _subject.run(activity)
        calls += 1
        seconds = time.perf_counter() - started
    return seconds / calls


def _memory():
    """Return the peak memory of the process, and the part above a pass on two images, in bytes.

    The second number excludes libraries, compiled code and weights.
    """
    peak = _subject.memory.bytes()
    return peak, peak - _subject.before


def _synapse_rates(model, precision, batch):
    """Return images per second, by activity, of the model's synapses alone."""
    kind = "fused" if precision == "float32" else "fused, bfloat16"
    subject = _Subject(model, kind, batch, _settled(model))
    return {activity: batch / _synapse_seconds(subject, activity) for activity in ACTIVITIES}


def _synapse_seconds(subject, activity):
    """Return the seconds of the synapses of one call, each called again by itself."""
    calls = []
    layers = [layer for layer in subject.model.modules() if isinstance(layer, SYNAPSES)]
    hooks = [layer.register_forward_hook(partial(_note, calls)) for layer in layers]
    subject.run(activity)
    for hook in hooks:
        hook.remove()
    for layer in layers:
        # Without this mark, inputs are not known to be spikes and are computed densely.
        layer.spiking_input = False
    with subject.model.autocast():
        return sum(median(_seconds(*call) for _ in range(TURNS)) for call in calls)


def _note(calls, layer, inputs, _output):
    numbers = inputs[0].detach().to(layer.weight.dtype)
    calls.append((layer, numbers, inputs[0].requires_grad, torch.is_grad_enabled()))


def _seconds(layer, inputs, propagates, trained):
    inputs.requires_grad_(propagates)
    started = time.perf_counter()
    with torch.set_grad_enabled(trained):
        outputs = layer(inputs)
    seconds = time.perf_counter() - started
    if trained:
        gradient = torch.ones_like(outputs)
        started = time.perf_counter()
        outputs.backward(gradient)
        seconds += time.perf_counter() - started
    return seconds


BENCHMARKS = (synapses_alone, speed_against_naive)
