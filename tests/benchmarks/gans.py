"""Speed of training and sampling of the spiking GANs, compared with loops over time.

As in ``bench run``, the C library keeps freed memory, for both implementations.
"""

import sys
from pathlib import Path

import torch
from turns import compared

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


def gans_against_naive():
    """Yield images per second and the ratio to the naive rate, on 1x28x28 images."""
    keep_freed_memory()
    for name in NAMES:
        model = _built(name)
        naive = _Naive(model)
        images = torch.rand((BATCH, *IMAGE_SHAPE)) * 2 - 1
        model.training_step(images, Step(0.0, 1))
        naive.train(images)
        yield from compared(
            f"{name}, batch {BATCH}, training",
            BATCH,
            lambda images=images, naive=naive: naive.train(images),
            lambda images=images, model=model: model.training_step(images, Step(0.0, 1)),
        )
        model.eval()
        naive.network.training = False
        with torch.no_grad():
            yield from compared(
                f"{name}, batch {BATCH}, sampling",
                BATCH,
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


BENCHMARKS = (gans_against_naive,)
