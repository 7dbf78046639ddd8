"""The settings of the smallest run, and its models."""

from bench.protocol import load_protocol
from bench.registry import models

# Every cell takes about a second: 64 images, two time steps, one epoch.
TINY = (
    "time_steps=2",
    "epochs=1",
    "batch_size=16",
    "latent_size=4",
    "train_images=64",
    "test_images=24",
    "generated_images=10",
    "evaluation_batch_size=7",
    "noise_levels=[0.1, 0.3]",
    "kid_subset_size=5",
    "autoencoder_epochs=1",
    "autoencoder_batch_size=16",
    "models.fsvae.k=3",
)
# For tests that are not about what is measured: a run with EfficientNet's distances costs twice as
# much, one with all metrics four times as much as one with these.
FEW_METRICS = "reconstruction_loss,fad,firing_rate"
SLOW_METRICS = "efficientnet*"


def models_of_smoke():
    """The built-in models that ``smoke`` trains; it skips those for 28x28 images."""

    def trained(name):
        protocol = load_protocol("smoke").resolve(name, "digits")
        return models.load(name).unsupported((1, 32, 32), protocol) is None

    return [name for name in models.names() if trained(name)]
