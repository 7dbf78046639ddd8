"""A small spiking model for checks of metrics, whose outputs do not depend on batches."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bench.backend import NeuronSpec, SpikingBackend, Triangle
from bench.model import GenerativeModel, ImageShape, Step
from bench.protocol import Protocol

LATENT = 16
SPEC = NeuronSpec(0.5, 0.25, Triangle())


class SampleModel(GenerativeModel):
    """Reconstructs through spikes, with random weights.

    All of its draws are made image by image, so that an image gets the same ones in any batch, and
    its layers compute in float64, so that the size of a batch turns no spike.
    """

    version = "1"
    capabilities = frozenset({"sample", "sample_latents", "reconstruct", "encode", "decode"})
    spiking = True

    def __init__(
        self, image_shape: ImageShape, protocol: Protocol, backend: SpikingBackend
    ) -> None:
        super().__init__(image_shape, protocol, backend)
        pixels = torch.Size(image_shape).numel()
        self.encoder_layer = backend.linear(pixels, LATENT, SPEC)
        self.decoder_layer = backend.linear(LATENT, LATENT, SPEC)
        self.output = nn.Linear(LATENT, pixels)
        self.double()

    def training_step(self, images: Tensor, step: Step) -> Mapping[str, Tensor | float]:
        """Return a loss; nothing is trained."""
        return {"loss": 1.0}

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return encoder and decoder."""
        return {
            "encoder": [self.encoder_layer],
            "latent_sampler": [],
            "decoder": [self.decoder_layer, self.output],
        }

    def encode(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return spikes ``(T, N, D)`` of images ``(N, C, H, W)``."""
        pixels = images.double().flatten(1)
        train: Tensor = self.encoder_layer(pixels.expand(self.protocol.time_steps, *pixels.shape))
        return train.float()

    def decode(self, latents: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` of spikes ``(T, N, D)``."""
        rates = self.decoder_layer(latents.double()).mean(0)
        images: Tensor = self.output(rates).tanh().unflatten(1, self.image_shape)
        return images.float()

    def reconstruct(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return images that are like the given ones, both ``(N, C, H, W)``."""
        return (0.7 * images + 0.3 * self.decode(self.encode(images, generator))).clamp(-1, 1)

    def sample_latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Return random spikes ``(T, n, D)``, drawn one by one."""
        size = (self.protocol.time_steps, LATENT)
        draws = [
            torch.rand(size, generator=generator, device=generator.device, dtype=torch.float32)
            for _ in range(n)
        ]
        return (torch.stack(draws, 1) < 0.4).float()

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return decoded random spikes ``(n, C, H, W)``."""
        return self.decode(self.sample_latents(n, generator))
