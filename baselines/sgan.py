"""SGAN: a spiking GAN whose images are spike trains."""

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.gan import SpikingGAN
from baselines.gan_networks import PUBLISHED_SHAPES, LinearDiscriminator, SpikingReadout
from bench.backend import SpikingBackend, protocol_neuron
from bench.model import ImageShape
from bench.protocol import Protocol


class SGAN(SpikingGAN):
    """SGAN, the baseline of Feng et al. (arXiv:2305.10246), trained on binary cross entropy.

    The generator's output is a spike train ``(T, N, C, H, W)``, which the discriminator sees step
    by step; its image is the firing rate. Training images are the input at each time step. The
    official code is for 28x28 images only.
    """

    version = "1"

    @classmethod
    def unpublished(cls, image_shape: ImageShape, protocol: Protocol) -> str | None:
        """Return the variant for images ``(C, H, W)`` if it is the suite's own."""
        own = "ours_64" if image_shape in PUBLISHED_SHAPES and image_shape[1] == 64 else None
        return super().unpublished(image_shape, protocol) or own

    def __init__(
        self, image_shape: ImageShape, protocol: Protocol, backend: SpikingBackend | None
    ) -> None:
        super().__init__(image_shape, protocol, backend)
        assert backend is not None
        neuron = protocol_neuron(protocol)
        self.readout = SpikingReadout(image_shape, neuron, backend)
        self.discriminator = LinearDiscriminator(image_shape, neuron, backend)

    def discriminator_loss(self, images: Tensor, generated: Tensor) -> Tensor:
        """Return half of the cross entropy of both batches, summed over images.

        Args:
            images: training images ``(N, C, H, W)`` in [0, 1].
            generated: generated spikes ``(T, N, C, H, W)``.
        """
        real = self.discriminator(images[None], self.protocol.time_steps)
        return (_entropy(real, 1.0) + _entropy(self.discriminator(generated), 0.0)) / 2

    def generator_loss(self, generated: Tensor) -> Tensor:
        """Return the cross entropy of spikes ``(T, N, C, H, W)`` taken for real, summed."""
        return _entropy(self.discriminator(generated), 1.0)

    def images_of(self, generated: Tensor) -> Tensor:
        """Return firing rates ``(N, C, H, W)`` of spikes ``(T, N, C, H, W)``."""
        return generated.mean(0, dtype=torch.get_default_dtype())


def _entropy(logits: Tensor, target: float) -> Tensor:
    """Return the binary cross entropy of logits ``(N,)``, summed over images."""
    return F.binary_cross_entropy_with_logits(
        logits, torch.full_like(logits, target), reduction="sum"
    )
