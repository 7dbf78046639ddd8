"""Speed of training and sampling of the spiking GANs, compared with loops over time.

Both implementations run in one process and take turns, so that other processes of the machine
disturb both equally. A ratio is the median over the turns. As in ``bench run``, the C library keeps
freed memory, for both.
"""

import sys
import time
from pathlib import Path
from statistics import median

import torch

from bench.model import Step
from bench.protocol import load_protocol
from bench.registry import backends, models
from bench.system.memory import keep_freed_memory

sys.path.append(str(Path(__file__).parents[1] / "baselines"))
import naive_gan

NAMES = ("swgan", "sgad", "sgan")
IMAGE_SHAPE = (1, 28, 28)
BATCH, TIME_STEPS, LATENT_SIZE = 64, 16, 10
RATE = 2e-4
TURNS = 9


def gans_against_naive():
    """Yield images per second and the ratio to the naive rate, on 1x28x28 images."""
    keep_freed_memory()
    for name in NAMES:
        model = _built(name)
        naive = _Naive(model)
        images = torch.rand((BATCH, *IMAGE_SHAPE)) * 2 - 1
        model.training_step(images, Step(0.0, 1))
        naive.train(images)
        yield from _compared(
            f"{name}, batch {BATCH}, training",
            lambda images=images, naive=naive: naive.train(images),
            lambda images=images, model=model: model.training_step(images, Step(0.0, 1)),
        )
        model.eval()
        naive.network.training = False
        with torch.no_grad():
            yield from _compared(
                f"{name}, batch {BATCH}, sampling",
                lambda naive=naive: naive.network.generated(torch.randn(BATCH, LATENT_SIZE)),
                lambda model=model: model.decode(torch.randn(BATCH, LATENT_SIZE)),
            )


def _built(name):
    """Build a model of the official networks on the fused backend."""
    settings = [
        f"time_steps={TIME_STEPS}",
        f"latent_size={LATENT_SIZE}",
        f"image_size={IMAGE_SHAPE[1]}",
        f"learning_rate={RATE}",
        f"models.{name}.variant=official",
    ]
    protocol = load_protocol("smoke", settings).resolve(name, "digits")
    torch.manual_seed(0)
    return models.load(name)(IMAGE_SHAPE, protocol, backends.load("fused")())


class _Naive:
    """The naive twin of a model, which the same optimiser trains."""

    def __init__(self, model):
        self.network = getattr(naive_gan, type(model).__name__)(model)
        self.weights = {
            "discriminator": self.network.of("discriminator"),
            "generator": self.network.of("generator") + self.network.of("readout"),
        }
        self.optimizers = {
            part: torch.optim.RMSprop(weights, lr=RATE) for part, weights in self.weights.items()
        }

    def train(self, images):
        network, latents = self.network, torch.randn(BATCH, LATENT_SIZE)
        generated = network.generated(latents).detach()
        self._descend(network.discriminator_loss((images + 1) / 2, generated), "discriminator")
        self._descend(network.generator_loss(network.generated(latents)), "generator")

    def _descend(self, loss, part):
        gradients = torch.autograd.grad(loss, self.weights[part])
        for weight, gradient in zip(self.weights[part], gradients, strict=True):
            weight.grad = gradient
        self.optimizers[part].step()


def _compared(what, naive, fused):
    """Yield the rates of two calls that take turns, and their ratio."""
    calls = naive, fused
    for call in calls:
        call()
    turns = [[_seconds(call) for call in calls] for _ in range(TURNS)]
    for kind, seconds in zip(("naive", "fused"), zip(*turns, strict=True), strict=True):
        yield f"{what}: {kind}", "images/s", BATCH / median(seconds)
    yield f"{what}: ratio", "1", median(slow / fast for slow, fast in turns)


def _seconds(call):
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


BENCHMARKS = (gans_against_naive,)
