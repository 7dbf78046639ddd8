"""``bench`` on drawn images: small networks, short protocols; ``all`` means few of each plug-in.

What imports this gets MNIST and Fashion-MNIST from the server that ``BENCH_TESTS_SERVER`` names, by
``resources.json`` there; the real ones are out of reach of a test.
"""

import json
import os
from urllib.request import urlopen

import torchvision
from narrow import WIDTHS
from tiny import TINY

from bench import protocol, registry
from bench.cli import profile

METRICS = (
    "reconstruction_loss",
    "fad",
    "autoencoder_authenticity",
    "firing_rate",
    "energy",
    "training_throughput",
)
PLOTS = ("metric_by_model", "latent_noise", "samples", "nearest_training_images")
MODELS = ("ann_vae", "esvae")
BACKENDS = ("fused", "reference")
# The docs name batches of 250.
SETTINGS = (
    *TINY,
    "train_images=256",
    "batch_size=64",
    "autoencoder_batch_size=128",
    "evaluation_batch_size=24",
    "models.spiking_diffusion.width=2",
    "models.sddpm.width=2",
    "models.sddpm.sampler=ddim",
    "models.sddpm.sampling_steps=2",
)
# Each of its stages needs an epoch.
TWO_STAGES = protocol.Override(models=("spiking_diffusion",), set={"epochs": 2})
SERVER = os.environ["BENCH_TESTS_SERVER"]
load = protocol.load_protocol


def load_short(name_or_path, settings=()):
    full = load(name_or_path)
    short = full.customised(protocol.parse_settings(SETTINGS))
    overrides = (*short.overrides, TWO_STAGES)
    short = short.model_copy(update={"name": full.name, "overrides": overrides})
    return short.customised(protocol.parse_settings(settings))


protocol.load_protocol = load_short
for module, name, width in WIDTHS:
    setattr(module, name, width)
(repeats,) = (option for option in profile.command.params if option.name == "repeats")
repeats.default = 1
registry.metrics.names = lambda: list(METRICS)
registry.plots.names = lambda: list(PLOTS)
registry.models.names = lambda: list(MODELS)
registry.backends.names = lambda: list(BACKENDS)
with urlopen(f"{SERVER}resources.json") as listed:
    resources = json.load(listed)
for theirs in (torchvision.datasets.MNIST, torchvision.datasets.FashionMNIST):
    theirs.mirrors, theirs.resources = [SERVER], resources
torchvision.datasets.CIFAR10.url = f"{SERVER}nothing"
