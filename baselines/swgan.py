"""SWGAN and SGAD: spiking Wasserstein GANs."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from baselines.attention_decoding import AttentionDecoding
from baselines.gan import GANOptions, SpikingGAN
from baselines.gan_networks import ConvolutionalDiscriminator, IntegratingReadout
from bench.backend import SpikingBackend, UnsupportedNeuronError, protocol_neuron
from bench.model import ImageShape
from bench.protocol import Protocol


class WassersteinOptions(GANOptions):
    """Options of SWGAN and SGAD.

    Attributes:
        constraint: how the critic is kept Lipschitz continuous. ``none`` as in the official code,
            where weight clipping is commented out; ``weight_clipping`` (arXiv:1701.07875) and
            ``gradient_penalty`` (arXiv:1704.00028) are the suite's choices.
        clip: largest absolute weight under ``weight_clipping``.
        penalty_weight: factor of the penalty under ``gradient_penalty``.
    """

    constraint: Literal["none", "weight_clipping", "gradient_penalty"] = "none"
    clip: Annotated[float, Field(gt=0)] = 0.01
    penalty_weight: Annotated[float, Field(ge=0)] = 10.0


class SWGAN(SpikingGAN):
    """SWGAN (Feng et al., arXiv:2305.10246): a spiking GAN with a Wasserstein critic."""

    version = "1"
    Options = WassersteinOptions
    model_options: WassersteinOptions

    def __init__(
        self, image_shape: ImageShape, protocol: Protocol, backend: SpikingBackend | None
    ) -> None:
        super().__init__(image_shape, protocol, backend)
        assert backend is not None
        penalised = self.model_options.constraint == "gradient_penalty"
        if penalised and not backend.differentiable_twice:
            raise UnsupportedNeuronError(
                f"a gradient penalty needs second derivatives, which {type(backend).__name__} does "
                "not compute"
            )
        self.readout = self.build_readout(backend)
        neuron = protocol_neuron(protocol)
        self.discriminator = ConvolutionalDiscriminator(image_shape, neuron, backend)

    def build_readout(self, backend: SpikingBackend) -> torch.nn.Module:
        """Return the generator's last layer."""
        return IntegratingReadout(self.image_shape, backend)

    def critic(self, images: Tensor) -> Tensor:
        """Return the critic's values ``(N,)`` for images ``(N, C, H, W)`` in [0, 1]."""
        values: Tensor = self.discriminator(images, self.protocol.time_steps)
        return values

    def discriminator_loss(self, images: Tensor, generated: Tensor) -> Tensor:
        """Return ``mean D(real) - mean D(generated)``, plus the penalty if there is one.

        Real images get low values: the sign is turned round against arXiv:1701.07875.

        Args:
            images: training images ``(N, C, H, W)`` in [0, 1].
            generated: generated images ``(N, C, H, W)`` in [0, 1].
        """
        loss = self.critic(images).mean() - self.critic(generated).mean()
        if self.model_options.constraint == "gradient_penalty":
            loss = loss + self.model_options.penalty_weight * self._penalty(images, generated)
        return loss

    def generator_loss(self, generated: Tensor) -> Tensor:
        """Return ``mean D(generated)``, a scalar, for images ``(N, C, H, W)`` in [0, 1]."""
        return self.critic(generated).mean()

    def images_of(self, generated: Tensor) -> Tensor:
        """Return generated images ``(N, C, H, W)`` as they are."""
        return generated

    @torch.no_grad()
    def constrain_discriminator(self) -> None:
        """Clip the critic's weights under ``weight_clipping``."""
        if self.model_options.constraint == "weight_clipping":
            clip = self.model_options.clip
            for parameter in self.discriminator.parameters():
                parameter.clamp_(-clip, clip)

    def _penalty(self, images: Tensor, generated: Tensor) -> Tensor:
        """Return ``mean (|grad D| - 1)^2`` between the images, each ``(N, C, H, W)``."""
        share = torch.rand((len(images), 1, 1, 1), device=images.device, dtype=images.dtype)
        between = torch.lerp(images, generated, share).requires_grad_()
        total = self.critic(between).sum()
        (gradient,) = torch.autograd.grad(total, between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


class SGAD(SWGAN):
    """SGAD (Feng et al., arXiv:2305.10246): SWGAN whose read-out attends over time steps."""

    version = "1"

    def build_readout(self, backend: SpikingBackend) -> torch.nn.Module:
        """Return the generator's last layer, with attention."""
        return AttentionDecoding(self.image_shape, backend)
