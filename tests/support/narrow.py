"""Networks of the suite's models with few channels, for tests that are not about their size."""

from contextlib import contextmanager

import pytest

from baselines import ann_vae, gan_networks, networks
from baselines.gan_networks import NetworkSize

CHANNELS = {32: [4, 4, 8, 8], 64: [4, 4, 8, 8, 8]}.__getitem__
GAN_SIZES = {
    28: NetworkSize(7, (8, 4), 16),
    32: NetworkSize(8, (8, 4), 16),
    64: NetworkSize(8, (8, 4, 4), 16),
}
WIDTHS = (
    (networks, "convolution_channels", CHANNELS),
    (ann_vae, "convolution_channels", CHANNELS),
    (gan_networks, "HIDDEN", 32),
    (gan_networks, "SIZES", GAN_SIZES),
    (gan_networks, "DISCRIMINATOR_CHANNELS", (4, 8)),
    (gan_networks, "SGAN_HIDDEN", 16),
)


@contextmanager
def narrow_networks():
    """Within it, models are built with few channels."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name, width in WIDTHS:
            patch.setattr(module, name, width)
        yield
