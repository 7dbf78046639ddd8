"""The ANN VAE that the spiking papers use as a baseline."""

from collections import OrderedDict
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from baselines.divergences import elbo_weight, gaussian_kl
from baselines.networks import SMALLEST_MAP, convolution_channels
from baselines.vae import VAE
from bench.backend import SpikingBackend, downsampling, to_image, upsampling
from bench.model import ImageShape, ModelOptions, Step
from bench.protocol import Protocol


class ANNVAEOptions(ModelOptions):
    """Options of the ANN VAE.

    Attributes:
        kl_weight: weight of the KL: ``elbo`` as in the ELBO; ``per_batch`` one over the number of
            batches in the loader, as in the papers' official code; or a number.
    """

    kl_weight: Literal["elbo", "per_batch"] | Annotated[float, Field(ge=0)] = "elbo"


class ANNVAE(VAE):
    """ANN VAE (Kingma and Welling, arXiv:1312.6114) with the layer sizes of the spiking VAEs."""

    version = "1"
    Options = ANNVAEOptions

    def __init__(
        self, image_shape: ImageShape, protocol: Protocol, backend: SpikingBackend | None
    ) -> None:
        super().__init__(image_shape, protocol, backend)
        self.model_options = ANNVAEOptions.model_validate(protocol.options)
        channels = convolution_channels(image_shape[1])
        features = channels[-1] * SMALLEST_MAP**2
        self.encoder = _encoder(image_shape[0], channels)
        self.mean = nn.Linear(features, protocol.latent_size)
        self.log_variance = nn.Linear(features, protocol.latent_size)
        self.decoder_input = nn.Linear(protocol.latent_size, features)
        self.decoder = _decoder(image_shape[0], channels[::-1])

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return encoder (with both heads) and decoder; drawing z needs no layer."""
        return {
            "encoder": [self.encoder, self.mean, self.log_variance],
            "latent_sampler": [],
            "decoder": [self.decoder_input, self.decoder],
        }

    def prior_modules(self) -> list[nn.Module]:
        """Return none: the prior is N(0, I)."""
        return []

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z | x), each ``(N, latent_size)``."""
        with self.autocast():
            features = self.encoder(images)
            mean, log_variance = self.mean(features), self.log_variance(features)
        return mean.to(self.dtype), log_variance.to(self.dtype)

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a draw ``(N, latent_size)`` from the posterior of images ``(N, C, H, W)``."""
        return _draw(*self.posterior(images), generator)

    def decode(self, latents: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` of latents ``(N, latent_size)``."""
        with self.autocast():
            images = self.decoder(self.decoder_input(latents))
        return images.to(self.dtype)

    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return draws ``(n, latent_size)`` from the prior N(0, I)."""
        size = (n, self.protocol.latent_size)
        return torch.randn(size, generator=generator, device=self.device, dtype=self.dtype)

    def losses(
        self, images: Tensor, step: Step, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return ``MSE + w * KL`` and both terms; :class:`ANNVAEOptions` defines w."""
        mean, log_variance = self.posterior(images)
        reconstructions = self.decode(_draw(mean, log_variance, generator))
        reconstruction_loss = F.mse_loss(reconstructions, images)
        kl = gaussian_kl(mean, log_variance)
        loss = reconstruction_loss + self._kl_weight(step) * kl
        return {"loss": loss, "reconstruction_loss": reconstruction_loss, "kl": kl}

    def _kl_weight(self, step: Step) -> float:
        match self.model_options.kl_weight:
            case "elbo":
                return elbo_weight(self.image_shape)
            case "per_batch":
                return 1 / step.batches
            case weight:
                return weight


def _draw(mean: Tensor, log_variance: Tensor, generator: torch.Generator | None) -> Tensor:
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return mean + (log_variance / 2).exp() * noise


def _encoder(image_channels: int, channels: list[int]) -> nn.Sequential:
    inputs = [image_channels, *channels[:-1]]
    blocks = [
        (f"conv{i + 1}", _block(downsampling(before, after), after))
        for i, (before, after) in enumerate(zip(inputs, channels, strict=True))
    ]
    return nn.Sequential(OrderedDict([*blocks, ("flatten", nn.Flatten())]))


def _decoder(image_channels: int, channels: list[int]) -> nn.Sequential:
    outputs = [*channels[1:], channels[-1]]
    smallest_map = (channels[0], SMALLEST_MAP, SMALLEST_MAP)
    blocks = [
        (f"deconv{i + 1}", _block(upsampling(before, after), after))
        for i, (before, after) in enumerate(zip(channels, outputs, strict=True))
    ]
    return nn.Sequential(
        OrderedDict(
            [
                ("unflatten", nn.Unflatten(1, smallest_map)),
                *blocks,
                ("to_image", to_image(channels[-1], image_channels)),
                ("tanh", nn.Tanh()),
            ]
        )
    )


def _block(convolution: nn.Module, features: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(features), nn.LeakyReLU(0.01))
