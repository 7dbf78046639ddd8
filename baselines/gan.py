"""The base class of the spiking GANs, and what their options have in common."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from baselines.gan_layers import tracked_twice
from baselines.gan_networks import OWN_SIZE, PUBLISHED_SHAPES, Generator
from baselines.optimizers import optimizer, prepare
from bench.backend import SpikingBackend, protocol_neuron
from bench.model import Capability, GenerativeModel, ImageShape, ModelOptions, Step
from bench.protocol import Protocol

OFFICIAL = "official"


class GANOptions(ModelOptions):
    """Options of the spiking GANs.

    Attributes:
        variant: ``official``, the networks of the official code for 28x28 grey and 64x64 RGB
            images; or ``ours_32``, the suite's own for 32x32 images, which no paper describes.
        statistics: statistics of batch norm when images are sampled: ``running``, or ``batch`` as
            in the official code, where an image depends on the others of its batch.
        discriminator_learning_rate: learning rate of the discriminator; None for the generator's.
        critic_steps: number of batches that the discriminator is trained on for each of the
            generator; above 1 it is the suite's choice, as the official code has 1.
    """

    variant: Literal["official", "ours_32"] = "official"
    statistics: Literal["running", "batch"] = "running"
    discriminator_learning_rate: Annotated[float, Field(gt=0)] | None = None
    critic_steps: Annotated[int, Field(ge=1)] = 1


class SpikingGAN(GenerativeModel):
    """A generator and a discriminator, each with its optimiser (arXiv:2305.10246).

    Both are trained on each batch, the discriminator first. The generator then learns from the same
    latents. The official code computes their images again for it; as the generator has not changed,
    they are equal, and here they are computed once.
    """

    spiking = True
    real_latents = True
    capturable = True
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"sample", "sample_latents", "decode"}
    )
    Options: ClassVar[type[GANOptions]] = GANOptions
    discriminator: nn.Module
    readout: nn.Module

    def __init__(
        self, image_shape: ImageShape, protocol: Protocol, backend: SpikingBackend | None
    ) -> None:
        super().__init__(image_shape, protocol, backend)
        backend = self.spiking_backend
        self.model_options = self.Options.model_validate(protocol.options)
        self.generator = Generator(
            protocol.latent_size,
            image_shape,
            protocol_neuron(protocol),
            backend,
            batch_statistics=self.model_options.statistics == "batch",
        )

    @classmethod
    def unsupported(cls, image_shape: ImageShape, protocol: Protocol) -> str | None:
        """Return why there is no network for images ``(C, H, W)``; None if there is one."""
        channels, height, width = image_shape
        here = f"{channels}x{height}x{width}"
        if _variant(cls, protocol) != OFFICIAL:
            if height == width == OWN_SIZE and channels in {1, 3}:
                return None
            return (
                f"the variant ours_32 takes 32x32 images of 1 or 3 channels, not {here}: set "
                "image_size in the protocol"
            )
        if image_shape in PUBLISHED_SHAPES:
            return None
        return (
            f"the official networks take 1x28x28 and 3x64x64 images, not {here}: set image_size in "
            "the protocol, or the option variant=ours_32 for 32x32 images"
        )

    @classmethod
    def unpublished(cls, image_shape: ImageShape, protocol: Protocol) -> str | None:
        """Return the variant for images ``(C, H, W)`` if it is the suite's own."""
        variant = _variant(cls, protocol)
        return None if variant == OFFICIAL else variant

    @abstractmethod
    def discriminator_loss(self, images: Tensor, generated: Tensor) -> Tensor:
        """Return the discriminator's loss, a scalar.

        Args:
            images: training images ``(N, C, H, W)`` in [0, 1].
            generated: the read-out's output for as many latents.
        """

    @abstractmethod
    def generator_loss(self, generated: Tensor) -> Tensor:
        """Return the generator's loss, a scalar, for the read-out's output."""

    @abstractmethod
    def images_of(self, generated: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` in [0, 1] of the read-out's output."""

    def constrain_discriminator(self) -> None:
        """Change the discriminator's weights after its optimiser has."""

    @cached_property
    def generator_optimizer(self) -> torch.optim.Optimizer:
        """The protocol's optimiser over generator and read-out."""
        return optimizer(self.protocol, self._generator_parameters(), self.device)

    @cached_property
    def discriminator_optimizer(self) -> torch.optim.Optimizer:
        """The protocol's optimiser over the discriminator, at its own learning rate."""
        rate = self.model_options.discriminator_learning_rate
        return optimizer(self.protocol, self.discriminator.parameters(), self.device, rate)

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restore both optimisers, also where they were saved on another kind of device."""
        super().load_training_state(state)
        prepare(self.generator_optimizer, self.device)
        prepare(self.discriminator_optimizer, self.device)

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        """Train both on a batch ``(N, C, H, W)``; return the losses before each step.

        With ``critic_steps`` above 1, ``generator_loss`` is returned only if the generator learns.
        """
        steps = self.model_options.critic_steps
        generator_learns = steps == 1 or (int(step.step) + 1) % steps == 0
        size = (len(images), self.protocol.latent_size)
        latents = torch.randn(size, device=images.device, dtype=images.dtype)
        generate = self._generated_twice if generator_learns else self._without_gradient
        generated = generate(latents)
        losses = {"discriminator_loss": self.train_discriminator(images, generated.detach())}
        if generator_learns:
            losses["generator_loss"] = self.train_generator(generated)
        return losses

    def train_discriminator(self, images: Tensor, generated: Tensor) -> Tensor:
        """Take a step of the discriminator, and return its loss before it.

        Args:
            images: training images ``(N, C, H, W)`` in [-1, 1].
            generated: the read-out's output for as many latents, without gradient.
        """
        self.discriminator_optimizer.zero_grad()
        loss = self.discriminator_loss((images + 1) / 2, generated)
        loss.backward()
        self.discriminator_optimizer.step()
        self.constrain_discriminator()
        return loss.detach()

    def train_generator(self, generated: Tensor) -> Tensor:
        """Take a step of the generator, and return its loss before it, a scalar.

        The discriminator only passes gradients on; its running statistics follow all the same.

        Args:
            generated: the read-out's output, ``(N, C, H, W)`` or ``(T, N, C, H, W)``.
        """
        self.generator_optimizer.zero_grad()
        self.discriminator.requires_grad_(False)
        loss = self.generator_loss(generated)
        loss.backward()
        self.discriminator.requires_grad_(True)
        self.generator_optimizer.step()
        return loss.detach()

    def sample_latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Return draws ``(n, latent_size)`` from N(0, I)."""
        size = (n, self.protocol.latent_size)
        return torch.randn(size, generator=generator, device=self.device)

    def decode(self, latents: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` of latents ``(N, latent_size)``."""
        return 2 * self.images_of(self.generated(latents)) - 1

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return images ``(n, C, H, W)`` of latents drawn from N(0, I)."""
        return self.decode(self.sample_latents(n, generator))

    def generated(self, latents: Tensor) -> Tensor:
        """Return the read-out's output for latents ``(N, latent_size)``."""
        output: Tensor = self.readout(self.generator(latents, self.protocol.time_steps))
        return output

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return generator, with its read-out, and discriminator."""
        return {
            "generator": [self.generator, self.readout],
            "discriminator": [self.discriminator],
        }

    def sampling_modules(self) -> list[nn.Module]:
        """Return generator and read-out."""
        return [self.generator, self.readout]

    def _generator_parameters(self) -> list[nn.Parameter]:
        return [*self.generator.parameters(), *self.readout.parameters()]

    def _generated_twice(self, latents: Tensor) -> Tensor:
        """Return the output for both steps; running statistics change as in two passes."""
        with tracked_twice(self.generator, self.protocol.time_steps):
            return self.generated(latents)

    @torch.no_grad()
    def _without_gradient(self, latents: Tensor) -> Tensor:
        return self.generated(latents)


def _variant(model: type[SpikingGAN], protocol: Protocol) -> str:
    return model.Options.model_validate(protocol.options).variant
