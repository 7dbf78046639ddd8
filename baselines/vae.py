"""Base classes of the three VAEs: one optimiser, one loss, reconstruction through the latent."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from baselines.networks import SpikingDecoder, SpikingEncoder, unsupported_images
from baselines.optimizers import optimizer, prepare
from bench.backend import SpikingBackend
from bench.model import Capability, GenerativeModel, ImageShape, Step
from bench.protocol import Protocol


class VAE(GenerativeModel):
    """A variational autoencoder trained by one optimiser on one loss."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"sample", "sample_latents", "reconstruct", "encode", "decode", "test_loss"}
    )
    precisions = frozenset({"float32", "tf32", "bfloat16"})
    capturable = True

    @classmethod
    def unsupported(cls, image_shape: ImageShape, protocol: Protocol) -> str | None:
        """Return why the papers' networks cannot take images ``(C, H, W)``; None if they can."""
        return unsupported_images(image_shape)

    @abstractmethod
    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return latents ``(T, n, D)`` or ``(n, D)`` drawn from the prior."""

    @abstractmethod
    def losses(
        self, images: Tensor, step: Step, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the loss and its parts, each a scalar.

        Args:
            images: batch ``(N, C, H, W)`` in [-1, 1].
            step: position of the batch in the run.
            generator: source of random draws; PyTorch's default generator if None.
        """

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the parameters."""
        return next(self.parameters()).dtype

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the parameters in groups, as ``torch.optim`` takes them."""
        return [{"params": list(self.parameters())}]

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """The protocol's optimiser over :meth:`parameter_groups`."""
        return optimizer(self.protocol, self.parameter_groups(), self.device)

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restore the optimiser, also where it was saved on another kind of device."""
        super().load_training_state(state)
        prepare(self.optimizer, self.device)

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        """Take one gradient step on a batch ``(N, C, H, W)``; return the losses before it."""
        self.optimizer.zero_grad()
        losses = self.losses(images, step)
        losses["loss"].backward()
        self.optimizer.step()
        return {name: value.detach() for name, value in losses.items()}

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return images ``(n, C, H, W)`` of latents drawn from the prior."""
        return self.decode(self.sample_latents(n, generator))

    def sampling_modules(self) -> list[nn.Module]:
        """Return prior and decoder."""
        return [*self.prior_modules(), *self.parts()["decoder"]]

    @abstractmethod
    def prior_modules(self) -> list[nn.Module]:
        """Return the modules that :meth:`sample_latents` runs."""

    def reconstruct(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return the decoded latents of images, both ``(N, C, H, W)``."""
        return self.decode(self.encode(images, generator))

    def test_loss(self, images: Tensor, step: Step, generator: torch.Generator) -> Tensor:
        """Return the training objective in evaluation mode, a scalar.

        Args:
            images: batch ``(N, C, H, W)`` in [-1, 1].
            step: position of the batch.
            generator: source of the model's random draws.
        """
        return self.losses(images, step, generator)["loss"]


class SpikingVAE(VAE):
    """A VAE with the papers' spiking encoder and decoder."""

    spiking = True

    def __init__(
        self, image_shape: ImageShape, protocol: Protocol, backend: SpikingBackend | None
    ) -> None:
        super().__init__(image_shape, protocol, backend)
        backend = self.spiking_backend
        self.encoder = SpikingEncoder(image_shape, protocol, backend)
        self.decoder = SpikingDecoder(image_shape, protocol, backend)

    def decode(self, latents: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` of latent spikes ``(T, N, latent_size)``."""
        with self.autocast():
            return self.decoder(latents)

    def decode_prefixes(self, latents: Tensor, **labels: Tensor) -> Iterator[Tensor]:
        """Yield the images ``(N, C, H, W)`` of the first t = 1..T steps of ``(T, N, latent_size)``.

        One pass suffices, because later steps change no earlier spike.
        """
        with self.autocast():
            images = list(self.decoder.prefixes(latents))
        yield from images

    def encoded(self, images: Tensor) -> Tensor:
        """Return the encoder's spikes ``(T, N, latent_size)`` for images ``(N, C, H, W)``."""
        with self.autocast():
            return self.encoder(images).to(self.dtype)

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return encoder, decoder and :meth:`latent_sampler`."""
        return {
            "encoder": [self.encoder],
            "latent_sampler": self.latent_sampler(),
            "decoder": [self.decoder],
        }

    @abstractmethod
    def latent_sampler(self) -> list[nn.Module]:
        """Return the modules between the encoder's spikes, or noise, and z."""
