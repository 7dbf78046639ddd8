"""Spiking-Diffusion: VQ-SVAE, and an absorbing-state diffusion model of its tokens."""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from baselines.absorbing_diffusion import (
    BoundWeights,
    Denoiser,
    bound_weight,
    diffusion_loss,
    masked,
    sample_tokens,
)
from baselines.optimizers import optimizer, prepare
from baselines.vq_networks import CODES
from baselines.vq_svae import TOKENS, VQSVAE, VQSVAEOptions
from bench.backend import SpikingBackend, protocol_neuron
from bench.model import Capability, ImageShape, Stage, Step
from bench.protocol import Protocol

PRIOR = "prior"
"""Name of the stage in which the diffusion model of the tokens is learned."""
OFFICIAL_WIDTH = 64
MASK = CODES


class SpikingDiffusionOptions(VQSVAEOptions):
    """Options of Spiking-Diffusion: VQ-SVAE's, and its own.

    Attributes:
        temperature: temperature of the tokens' draws. The official code tries 12, from 0.001 to 1,
            and reports the best on the test images.
        bound_weights: weight of an image's loss at diffusion step t of 49: ``reweighted``,
            ``1 - t / 49``, in the official code; ``elbo``, ``49 / t``, in the paper.
        first_stage: share of the epochs in which the tokens are learned.
        prior_learning_rate: learning rate of the diffusion model; None for the protocol's.
        width: channels of the denoiser's first layer; a network of another width than 64 is the
            suite's own.
    """

    temperature: Annotated[float, Field(gt=0)] = 1.0
    bound_weights: BoundWeights = "reweighted"
    first_stage: Annotated[float, Field(gt=0, lt=1)] = 1 / 3
    prior_learning_rate: Annotated[float, Field(gt=0)] | None = None
    width: Annotated[int, Field(ge=1)] = OFFICIAL_WIDTH


class SpikingDiffusion(VQSVAE):
    """Spiking-Diffusion (Liu et al., arXiv:2308.10187, and its official code).

    VQ-SVAE is trained first, then frozen, with its batch norm in evaluation mode, while the
    denoiser learns to predict masked tokens. The tokens of each batch are computed when it is
    trained on. The official code computes them once and keeps membrane potentials from batch to
    batch while it does, so that they depend on the order of the images; here they do not.

    With the official weights, the loss at the last diffusion step is 0: from masks alone, where
    sampling begins, the denoiser is not trained.
    """

    version = "1"
    capabilities: ClassVar[frozenset[Capability]] = VQSVAE.capabilities | {
        "sample",
        "sample_latents",
    }
    Options: ClassVar[type[SpikingDiffusionOptions]] = SpikingDiffusionOptions

    def __init__(
        self, image_shape: ImageShape, protocol: Protocol, backend: SpikingBackend | None
    ) -> None:
        super().__init__(image_shape, protocol, backend)
        backend = self.spiking_backend
        self.model_options = self.Options.model_validate(protocol.options)
        width, spec = self.model_options.width, protocol_neuron(protocol)
        self.denoiser = Denoiser(CODES, width, spec, backend, protocol.time_steps)

    @classmethod
    def unpublished(cls, image_shape: ImageShape, protocol: Protocol) -> str | None:
        """Return the variant, or the width of the denoiser, if it is the suite's own."""
        width = cls.Options.model_validate(protocol.options).width
        own_width = None if width == OFFICIAL_WIDTH else f"width_{width}"
        names = filter(None, (super().unpublished(image_shape, protocol), own_width))
        return "_".join(names) or None

    @classmethod
    def stages(cls, protocol: Protocol) -> tuple[Stage, ...]:
        """Return the stages: the tokens are learned, then their prior."""
        share = cls.Options.model_validate(protocol.options).first_stage
        return Stage(TOKENS, share), Stage(PRIOR, 1 - share)

    def begin_stage(self, stage: str, images: Tensor) -> None:
        """Freeze the autoencoder before its prior is learned; see the base class."""
        super().begin_stage(stage, images)
        for module in self.autoencoder():
            module.requires_grad_(stage == TOKENS)

    @cached_property
    def prior_optimizer(self) -> torch.optim.Optimizer:
        """The protocol's optimiser over the denoiser, at its own learning rate."""
        rate = self.model_options.prior_learning_rate
        return optimizer(self.protocol, self.denoiser.parameters(), self.device, rate)

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restore both optimisers, also where they were saved on another kind of device."""
        super().load_training_state(state)
        prepare(self.prior_optimizer, self.device)

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        """Train the stage's part on a batch ``(N, C, H, W)``; return the losses before the step."""
        if step.stage == TOKENS:
            return super().training_step(images, step)
        self.prior_optimizer.zero_grad()
        loss = self.prior_loss(self.frozen_tokens(images), None)
        loss.backward()
        self.prior_optimizer.step()
        return {"prior_loss": loss.detach()}

    @torch.no_grad()
    def frozen_tokens(self, images: Tensor) -> Tensor:
        """Return tokens ``(N, H / 4, W / 4)`` of images ``(N, C, H, W)``, in evaluation mode.

        No statistic of batch norm changes, and a token depends on its image alone.
        """
        training = self.training
        self.encoder.eval()
        tokens = self.tokens(images)
        self.encoder.train(training)
        return tokens

    def prior_loss(self, tokens: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the loss of the denoiser in bits per token, a scalar.

        Args:
            tokens: tokens ``(N, H / 4, W / 4)``.
            generator: source of the diffusion steps and masks; None for PyTorch's own.
        """
        places = tokens[0].numel()
        size, device = tokens.shape[:1], tokens.device
        step = torch.randint(1, places + 1, size, generator=generator, device=device)
        shown, hidden = masked(tokens, step, MASK, generator)
        weight = bound_weight(step, places, self.model_options.bound_weights)
        return diffusion_loss(self.denoiser(shown, step), tokens, hidden, weight)

    def test_loss(self, images: Tensor, step: Step, generator: torch.Generator) -> Tensor:
        """Return the loss of the denoiser on images ``(N, C, H, W)``, a scalar."""
        return self.prior_loss(self.tokens(images), generator)

    def sample_tokens(self, n: int, generator: torch.Generator) -> Tensor:
        """Return tokens ``(n, H / 4, W / 4)`` of the prior."""
        size = (n, *self.map_size)
        temperature = self.model_options.temperature
        return sample_tokens(self.denoiser, size, MASK, temperature, generator)

    def sample_latents(self, n: int, generator: torch.Generator) -> Tensor:
        """Return the decoder's input spikes ``(T, n, D)`` for tokens of the prior."""
        return self.spikes_of(self.sample_tokens(n, generator))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return images ``(n, C, H, W)`` of tokens of the prior."""
        return self.decode(self.sample_latents(n, generator))

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return encoder, denoiser and decoder."""
        return {**super().parts(), "latent_sampler": [self.denoiser]}

    def sampling_network(self) -> nn.Module:
        """Return the denoiser, which sampling evaluates once for each token of an image."""
        return self.denoiser

    def sampling_modules(self) -> list[nn.Module]:
        """Return all but the encoder."""
        return [self.quantiser, self.spike_generator, self.decoder, self.denoiser]
