"""SDDPM: a diffusion model of images whose denoiser is a spiking U-Net."""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from baselines.gaussian_diffusion import STEPS, ddim, ddpm, noisy, signal_shares
from baselines.optimizers import optimizer, prepare
from baselines.sddpm_network import REDUCTION, UNet
from bench.backend import SpikingBackend, protocol_neuron
from bench.model import Capability, GenerativeModel, ImageShape, ModelOptions, Step
from bench.protocol import Protocol

OFFICIAL_WIDTH = 128


class SDDPMOptions(ModelOptions):
    """Options of SDDPM.

    Attributes:
        width: channels of the U-Net's first level, an even number; a network of another width than
            128 is the suite's own.
        sampler: ``ddpm``, as published, which takes all 1,000 steps; or ``ddim``, without random
            draws after the first noise.
        sampling_steps: evaluations of the U-Net per sample; other than 1,000 with ``ddim`` only.
        gradient_norm: norm to which the gradient is clipped.
    """

    width: Annotated[int, Field(ge=2, multiple_of=2)] = OFFICIAL_WIDTH
    sampler: Literal["ddpm", "ddim"] = "ddpm"
    sampling_steps: Annotated[int, Field(ge=1, le=STEPS)] = STEPS
    gradient_norm: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _ddpm_takes_all_steps(self) -> "SDDPMOptions":
        if self.sampler == "ddpm" and self.sampling_steps != STEPS:
            raise ValueError(
                f"the sampler ddpm takes {STEPS} steps, not {self.sampling_steps}: its variances "
                "are of single steps; set sampler=ddim for fewer"
            )
        return self


class SDDPM(GenerativeModel):
    """SDDPM (Cao et al., arXiv:2306.17046, and its official code).

    The U-Net predicts the noise in an image at a step of the diffusion, and learns by the mean
    squared error. Its neurons have no leak, and are at rest before each evaluation; in the official
    code they continue from the last denoising step of the batch before.
    """

    version = "1"
    spiking = True
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"sample", "test_loss"})
    Options: ClassVar[type[SDDPMOptions]] = SDDPMOptions
    shares: Tensor

    def __init__(
        self, image_shape: ImageShape, protocol: Protocol, backend: SpikingBackend | None
    ) -> None:
        super().__init__(image_shape, protocol, backend)
        backend = self.spiking_backend
        self.model_options = self.Options.model_validate(protocol.options)
        spec, width = protocol_neuron(protocol), self.model_options.width
        self.unet = UNet(image_shape[0], width, spec, backend, protocol.time_steps)
        self.register_buffer("shares", signal_shares(), persistent=False)

    @classmethod
    def unsupported(cls, image_shape: ImageShape, protocol: Protocol) -> str | None:
        """Return why there is no network for images ``(C, H, W)``; None if there is one."""
        _, height, width = image_shape
        if height % REDUCTION or width % REDUCTION:
            return (
                f"its U-Net halves images {REDUCTION.bit_length() - 1} times, so height and width "
                f"must be multiples of {REDUCTION}, not {height}x{width}: set image_size=32 in "
                "the protocol"
            )
        if protocol.membrane_decay != 1:
            return (
                f"its neurons do not leak, and the protocol's membrane_decay is "
                f"{protocol.membrane_decay:g}: use the protocol sddpm_paper, or set "
                "membrane_decay=1.0"
            )
        return None

    @classmethod
    def unpublished(cls, image_shape: ImageShape, protocol: Protocol) -> str | None:
        """Return the width of the U-Net if it is the suite's own."""
        width = cls.Options.model_validate(protocol.options).width
        return None if width == OFFICIAL_WIDTH else f"width_{width}"

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """The protocol's optimiser over the U-Net."""
        return optimizer(self.protocol, self.unet.parameters(), self.device)

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restore the optimiser, also where it was saved on another kind of device."""
        super().load_training_state(state)
        prepare(self.optimizer, self.device)

    def training_step(self, images: Tensor, step: Step) -> dict[str, Tensor]:
        """Train on a batch ``(N, C, H, W)``; return the loss before the step."""
        self.optimizer.zero_grad()
        loss = self.noise_error(images, None)
        loss.backward()
        nn.utils.clip_grad_norm_(self.unet.parameters(), self.model_options.gradient_norm)
        self.optimizer.step()
        return {"loss": loss.detach()}

    def noise_error(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the mean squared error of the predicted noise, a scalar.

        Args:
            images: images without noise, ``(N, C, H, W)``.
            generator: source of the diffusion steps and of the noise; None for PyTorch's own.
        """
        size, device = images.shape[:1], images.device
        steps = torch.randint(STEPS, size, generator=generator, device=device)
        noise = torch.empty_like(images).normal_(generator=generator)
        share = self.shares[steps][:, None, None, None]
        predicted = self.unet(noisy(images, noise, share).to(images.dtype), steps)
        return F.mse_loss(predicted, noise)

    def test_loss(self, images: Tensor, step: Step, generator: torch.Generator) -> Tensor:
        """Return the loss on images ``(N, C, H, W)``, a scalar."""
        return self.noise_error(images, generator)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return images ``(n, C, H, W)`` by the sampler of the options."""
        noise = torch.randn((n, *self.image_shape), generator=generator, device=generator.device)
        if self.model_options.sampler == "ddim":
            return ddim(self.unet, noise, self.model_options.sampling_steps)
        return ddpm(self.unet, noise, generator)

    def parts(self) -> dict[str, list[nn.Module]]:
        """Return the U-Net."""
        return {"generator": [self.unet]}

    def sampling_network(self) -> nn.Module:
        """Return the U-Net, which sampling evaluates at each of its steps."""
        return self.unet
