"""What the three VAEs share: one optimiser, one loss, reconstruction by encoding and decoding."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.networks import SpikingDecoder, SpikingEncoder, SpikingLayers, unsupported_images
from bench.model import (
    Capability,
    GenerativeModel,
    ImageShape,
    Protocol,
    SpikingNeuron,
    Step,
)


class VAE(GenerativeModel):
    """A variational autoencoder that is trained by one optimiser on one loss."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"sample", "sample_latents", "reconstruct", "encode", "decode", "test_loss"}
    )
    precisions = frozenset({"float32", "bfloat16"})

    @classmethod
    def unsupported(cls, image_shape: ImageShape, protocol: Protocol) -> str | None:
        """The papers' networks take 32x32 and 64x64 images."""
        return unsupported_images(image_shape)

    @abstractmethod
    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws from the prior, as ``encode`` gives latents."""

    @abstractmethod
    def losses(
        self, images: Tensor, step: Step, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Loss and its parts, each a scalar, for images ``(N, C, H, W)`` in [-1, 1]."""

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the parameters."""
        return next(self.parameters()).dtype

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters by learning rate, as ``torch.optim`` takes them."""
        return [{"params": list(self.parameters())}]

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """The protocol's optimiser over :meth:`parameter_groups`."""
        classes = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        return classes[self.protocol.optimizer](
            self.parameter_groups(),
            lr=self.protocol.effective_learning_rate,
            betas=self.protocol.betas,
            weight_decay=self.protocol.weight_decay,
            fused=True,
        )

    def training_step(self, images: Tensor, step: Step) -> dict[str, float]:
        """One step of gradient descent on a batch; returns the losses before it."""
        self.optimizer.zero_grad()
        losses = self.losses(images, step)
        losses["loss"].backward()
        self.optimizer.step()
        values = torch.stack([value.detach() for value in losses.values()]).tolist()
        return dict(zip(losses, values, strict=True))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Images of draws from the prior."""
        return self.decode(self.sample_latents(n, generator))

    def reconstruct(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Decode what the posterior gives for the images."""
        return self.decode(self.encode(images, generator))

    def test_loss(self, images: Tensor, step: Step, generator: torch.Generator) -> Tensor:
        """The training objective, with the statistics of evaluation mode."""
        return self.losses(images, step, generator)["loss"]


class SpikingVAE(VAE):
    """A VAE with the papers' spiking encoder and decoder."""

    spiking = True

    def __init__(
        self, image_shape: ImageShape, protocol: Protocol, backend: type[SpikingNeuron] | None
    ) -> None:
        super().__init__(image_shape, protocol, backend)
        if backend is None:
            raise ValueError(f"{type(self).__name__} needs a spiking backend")
        self.layers = SpikingLayers(protocol, backend)
        self.encoder = SpikingEncoder(image_shape, self.layers)
        self.decoder = SpikingDecoder(image_shape, self.layers)

    def decode(self, latents: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` of latent spikes ``(T, N, latent_size)``."""
        with self.autocast():
            return self.decoder(latents)

    def decode_prefixes(self, latents: Tensor) -> Iterator[Tensor]:
        """One pass: what comes later changes no earlier spike."""
        with self.autocast():
            images = list(self.decoder.prefixes(latents))
        yield from images

    def encoded(self, images: Tensor) -> Tensor:
        """The encoder's latent spikes ``(T, N, latent_size)``."""
        with self.autocast():
            return self.encoder(images).to(self.dtype)

    def parts(self) -> dict[str, list[nn.Module]]:
        """Encoder and decoder, and as latent sampler what :meth:`latent_sampler` gives."""
        return {
            "encoder": [self.encoder],
            "latent_sampler": self.latent_sampler(),
            "decoder": [self.decoder],
        }

    @abstractmethod
    def latent_sampler(self) -> list[nn.Module]:
        """The modules between the encoder's latent spikes, or noise, and z."""
