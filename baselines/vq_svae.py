"""VQ-SVAE: a spiking autoencoder with a codebook, the first stage of Spiking-Diffusion."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.optimizers import optimizer, prepare
from baselines.vq_networks import (
    CODE_SIZE,
    REDUCTION,
    Quantiser,
    SpikeGenerator,
    VQDecoder,
    VQEncoder,
    quantisation_loss,
    synaptic_potentials,
)
from bench.backend import SpikingBackend, protocol_neuron
from bench.model import Capability, GenerativeModel, ImageShape, ModelOptions, Stage, Step
from bench.protocol import Protocol

OFFICIAL = "official"
OFFICIAL_SHAPE = (1, 28, 28)
OWN_SIZE = 32
TOKENS = "tokens"
"""Name of the stage in which the tokens are learned."""


class VQSVAEOptions(ModelOptions):
    """Options of VQ-SVAE.

    Attributes:
        variant: ``official``, the network of the official code for 28x28 grey images; or
            ``ours_32``, the same layers on 32x32 images of 1 or 3 channels, which no paper
            describes.
    """

    variant: Literal["official", "ours_32"] = "official"


class VQSVAE(GenerativeModel):
    """VQ-SVAE (Liu et al., arXiv:2308.10187, and its official code).

    An encoder's spikes are read as a feature at each place of a map of H / 4 x W / 4, whose nearest
    code is repeated at each time step and turned into spikes again, which the decoder takes.
    Gradients pass the codebook as if it were not there (straight-through).

    Images in [-1, 1] are halved at the input, as the official code takes pixels in [-1/2, 1/2].
    Its output is the tanh of a potential, in [-1, 1], and is compared with these pixels: images are
    twice the output, clipped to [-1, 1].

    Latents are the spikes ``(T, N, D)`` that the decoder takes, D = 16 * H / 4 * W / 4. They are a
    function of the tokens alone, which are not binary.

    The loss of the reconstruction is divided by the variance of the training images, as in the
    official code. It is a buffer, so that a trained model has a ``test_loss`` without them.
    """

    version = "1"
    spiking = True
    capabilities: ClassVar[frozenset[Capability]] = frozenset(
        {"reconstruct", "encode", "decode", "test_loss"}
    )
    Options: ClassVar[type[VQSVAEOptions]] = VQSVAEOptions
    image_variance: Tensor

    def __init__(
        self, image_shape: ImageShape, protocol: Protocol, backend: SpikingBackend | None
    ) -> None:
        super().__init__(image_shape, protocol, backend)
        backend = self.spiking_backend
        channels, height, width = image_shape
        self.map_size = (height // REDUCTION, width // REDUCTION)
        spec, time_steps = protocol_neuron(protocol), protocol.time_steps
        self.encoder = VQEncoder(channels, spec, backend, time_steps)
        self.quantiser = Quantiser()
        self.spike_generator = SpikeGenerator(spec, backend, time_steps)
        self.decoder = VQDecoder(channels, spec, backend)
        self.register_buffer("image_variance", torch.ones(()))
        self._variance_of_training: Tensor | None = None

    @classmethod
    def unsupported(cls, image_shape: ImageShape, protocol: Protocol) -> str | None:
        """Return why there is no network for images ``(C, H, W)``; None if there is one."""
        channels, height, width = image_shape
        here = f"{channels}x{height}x{width}"
        if cls.Options.model_validate(protocol.options).variant != OFFICIAL:
            if height == width == OWN_SIZE and channels in {1, 3}:
                return None
            return (
                f"the variant ours_32 takes 32x32 images of 1 or 3 channels, not {here}: set "
                "image_size in the protocol"
            )
        if image_shape == OFFICIAL_SHAPE:
            return None
        return (
            f"the official network takes 1x28x28 images, not {here}: set image_size in the "
            "protocol, or the option variant=ours_32 for 32x32 images"
        )

    @classmethod
    def unpublished(cls, image_shape: ImageShape, protocol: Protocol) -> str | None:
        """Return the variant for images ``(C, H, W)`` if it is the suite's own."""
        variant = cls.Options.model_validate(protocol.options).variant
        return None if variant == OFFICIAL else variant

    @classmethod
    def stages(cls, protocol: Protocol) -> tuple[Stage, ...]:
        """Return the only stage, which gives the training images to :meth:`begin_stage`."""
        return (Stage(TOKENS, 1.0),)

    def begin_stage(self, stage: str, images: Tensor) -> None:
        """Compute the variance of the training images, uint8 ``(N, C, H, W)``."""
        variance = pixel_variance(images).to(self.image_variance) if stage == TOKENS else None
        self._variance_of_training = variance

    @cached_property
    def token_optimizer(self) -> torch.optim.Optimizer:
        """The protocol's optimiser over encoder, codebook and decoder."""
        modules = self.autoencoder()
        parameters = [parameter for module in modules for parameter in module.parameters()]
        return optimizer(self.protocol, parameters, self.device)

    def autoencoder(self) -> list[nn.Module]:
        """Return the modules of the autoencoder."""
        return [self.encoder, self.quantiser, self.spike_generator, self.decoder]

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restore the optimiser, also where it was saved on another kind of device."""
        super().load_training_state(state)
        prepare(self.token_optimizer, self.device)

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        """Train on a batch ``(N, C, H, W)``; return the losses before the step."""
        if self._variance_of_training is not None:
            self.image_variance.copy_(self._variance_of_training)
        self.token_optimizer.zero_grad()
        losses = self.losses(images)
        losses["loss"].backward()
        self.token_optimizer.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def losses(self, images: Tensor) -> dict[str, Tensor]:
        """Return the objective and its parts, scalars, on images ``(N, C, H, W)``.

        ``loss = MSE / variance of the training images + feature_loss + potential_loss``, where the
        last two are :func:`quantisation_loss` of codes for features, and of the post-synaptic
        potentials of generated spikes for the encoder's.
        """
        pixels = images / 2
        spikes = self.encoder(pixels)
        feature = self.quantiser.feature(spikes)
        codes = self.quantiser.codes(self.quantiser.tokens(feature))
        generated = self.spike_generator(straight_through(feature, codes))
        reconstruction = F.mse_loss(self.decoder(generated), pixels)
        potentials = synaptic_potentials(spikes), synaptic_potentials(generated)
        parts = {
            "reconstruction_loss": reconstruction / self.image_variance,
            "feature_loss": quantisation_loss(feature, codes),
            "potential_loss": quantisation_loss(*potentials),
        }
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    def tokens(self, images: Tensor) -> Tensor:
        """Return tokens, int64 ``(N, H / 4, W / 4)``, of images ``(N, C, H, W)``."""
        return self.quantiser.tokens(self.quantiser.feature(self.encoder(images / 2)))

    def spikes_of(self, tokens: Tensor) -> Tensor:
        """Return latent spikes ``(T, N, D)`` of tokens ``(N, H / 4, W / 4)``."""
        return self.spike_generator(self.quantiser.codes(tokens)).flatten(2)

    def encode(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return latent spikes ``(T, N, D)`` of images ``(N, C, H, W)``; draws nothing."""
        return self.spikes_of(self.tokens(images))

    def decode(self, latents: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` of latent spikes ``(T, N, D)``."""
        return image_of(self.decoder(self._maps(latents)))

    def decode_prefixes(self, latents: Tensor, **labels: Tensor) -> Iterator[Tensor]:
        """Yield the images of the first t = 1..T time steps of spikes ``(T, N, D)``."""
        yield from map(image_of, self.decoder.prefixes(self._maps(latents)))

    def reconstruct(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return reconstructions of images, both ``(N, C, H, W)``; draws nothing."""
        return self.decode(self.encode(images, generator))

    def test_loss(self, images: Tensor, step: Step, generator: torch.Generator) -> Tensor:
        """Return the objective on images ``(N, C, H, W)``, a scalar; draws nothing."""
        return self.losses(images)["loss"]

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return encoder and decoder; spikes are generated from codes in the decoder."""
        return {"encoder": [self.encoder], "decoder": [self.spike_generator, self.decoder]}

    def _maps(self, latents: Tensor) -> Tensor:
        """Return latents ``(T, N, D)`` as maps ``(T, N, 16, H / 4, W / 4)`` of floats."""
        return latents.unflatten(2, (CODE_SIZE, *self.map_size)).to(self.quantiser.codebook.dtype)


def straight_through(feature: Tensor, codes: Tensor) -> Tensor:
    """Return the codes, whose gradient goes to the feature instead; all ``(...)``."""
    return feature + (codes - feature).detach()


def image_of(output: Tensor) -> Tensor:
    """Return images in [-1, 1] of the decoder's output, both ``(N, C, H, W)``: twice, clipped."""
    return (2 * output).clamp(-1, 1)


def pixel_variance(images: Tensor) -> Tensor:
    """Return the unbiased variance of pixels in [0, 1], a float64 scalar.

    Args:
        images: images, uint8 ``(N, C, H, W)``.

    >>> round(pixel_variance(torch.tensor([[[[0, 255, 255]]]], dtype=torch.uint8)).item(), 4)
    0.3333
    """
    counts = torch.bincount(images.flatten(), minlength=256).double()
    values = torch.arange(256, device=images.device, dtype=torch.float64) / 255
    mean = (counts @ values) / counts.sum()
    return (counts @ (values - mean).square()) / (counts.sum() - 1)
