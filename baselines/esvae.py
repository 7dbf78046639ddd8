"""ESVAE: a spiking VAE with a reparameterised Bernoulli latent."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.divergences import rbf_mmd
from baselines.vae import SpikingVAE
from bench.backend import SpikingBackend
from bench.model import ImageShape, Step
from bench.protocol import Protocol

MMD_WEIGHT = 1e-3
PRIOR_LEARNING_RATE_FACTOR = 10


class _ThresholdedDraw(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rate: Tensor, uniform: Tensor) -> Tensor:
        ctx.save_for_backward(rate, uniform)
        return (rate > uniform).to(rate.dtype)

    @staticmethod
    def backward(ctx: Any, grad_spikes: Tensor) -> tuple[Tensor, None]:
        rate, uniform = ctx.saved_tensors
        return grad_spikes * ((rate - uniform).abs() < 0.5), None


class ReparameterisedSampling(nn.Module):
    """Spikes ``z_t = [r > U_t]`` with a new ``U_t ~ Uniform(0, 1)`` at each time step.

    The surrogate gradient is ``[|r - U| < 0.5]``. The paper calls this a Poisson process; in
    discrete time each step is a Bernoulli draw (arXiv:2310.14839).
    """

    def __init__(self, time_steps: int) -> None:
        super().__init__()
        self.time_steps = time_steps

    def forward(self, rate: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return spikes ``(T, N, C)`` at rates ``(N, C)`` in [0, 1]."""
        size = (self.time_steps, *rate.shape)
        uniform = torch.rand(size, generator=generator, device=rate.device, dtype=rate.dtype)
        return _ThresholdedDraw.apply(rate.expand(size), uniform)


class ESVAE(SpikingVAE):
    """ESVAE (Zhan et al., arXiv:2310.14839), without the unused FSVAE nets of its code."""

    version = "1"

    def __init__(
        self, image_shape: ImageShape, protocol: Protocol, backend: SpikingBackend | None
    ) -> None:
        super().__init__(image_shape, protocol, backend)
        self.prior = nn.Sequential(
            nn.Linear(protocol.latent_size, protocol.latent_size), nn.Sigmoid()
        )
        self.latent = ReparameterisedSampling(protocol.time_steps)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return two groups: the prior learns at ten times the rate."""
        prior = list(self.prior.parameters())
        rest = [*self.encoder.parameters(), *self.decoder.parameters()]
        rate = self.protocol.effective_learning_rate * PRIOR_LEARNING_RATE_FACTOR
        return [{"params": rest}, {"params": prior, "lr": rate}]

    def latent_sampler(self) -> list[nn.Module]:
        """Return the prior; the posterior rate needs no layer of its own."""
        return [self.prior]

    def prior_modules(self) -> list[nn.Module]:
        """Return the prior, which is all that there is between noise and z."""
        return self.latent_sampler()

    def posterior_rate(self, images: Tensor) -> Tensor:
        """Return ``r_q``, the encoder's spikes averaged over time, ``(N, latent_size)``."""
        return self.encoded(images).mean(0)

    def prior_rate(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return ``r_p = sigmoid(W e + b)``, ``e ~ N(0, I)``, shape ``(n, latent_size)``."""
        size = (n, self.protocol.latent_size)
        noise = torch.randn(size, generator=generator, device=self.device, dtype=self.dtype)
        with self.autocast():
            return self.prior(noise).to(self.dtype)

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return latent spikes ``(T, N, latent_size)`` drawn at the posterior rate."""
        return self.latent(self.posterior_rate(images), generator)

    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return latent spikes ``(T, n, latent_size)`` drawn at the prior rate."""
        return self.latent(self.prior_rate(n, generator), generator)

    def losses(
        self, images: Tensor, step: Step, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return ``MSE + 1e-3 * MMD(r_q, r_p)`` (arXiv:2310.14839) and both terms."""
        posterior = self.posterior_rate(images)
        prior = self.prior_rate(len(images), generator)
        reconstructions = self.decode(self.latent(posterior, generator))
        reconstruction_loss = F.mse_loss(reconstructions, images)
        mmd = rbf_mmd(posterior, prior)
        loss = reconstruction_loss + MMD_WEIGHT * mmd
        return {"loss": loss, "reconstruction_loss": reconstruction_loss, "mmd": mmd}

    def spiking_layers(self) -> dict[str, nn.Module]:
        """Return the neurons and the sampled latent, by name."""
        return {**super().spiking_layers(), "latent": self.latent}
