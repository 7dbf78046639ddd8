"""A model that is trained in two stages: an autoencoder, then a prior of its spikes."""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from bench.backend import protocol_neuron
from bench.model import GenerativeModel, ModelOptions, Stage


class TwoStageOptions(ModelOptions):
    """Options, set with ``--set models.two_stage_model.first_stage=0.8``."""

    first_stage: Annotated[float, Field(gt=0, lt=1)] = 0.5  # share of the epochs


class TwoStageModel(GenerativeModel):
    """A spiking autoencoder, and for each latent neuron and time step the probability to fire."""

    version = "1"
    capabilities = frozenset({"reconstruct", "encode", "decode", "sample_latents", "sample"})
    spiking = True
    Options = TwoStageOptions

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        size, latent = torch.Size(image_shape).numel(), protocol.latent_size
        self.encoder = backend.linear(size, latent, protocol_neuron(protocol))
        self.decoder = nn.Sequential(nn.Linear(latent, size), nn.Unflatten(1, image_shape))
        self.prior = nn.Parameter(torch.zeros(protocol.time_steps, latent))  # log odds
        autoencoder = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.autoencoder_optimizer = torch.optim.Adam(autoencoder, lr=protocol.learning_rate)
        self.prior_optimizer = torch.optim.Adam([self.prior], lr=protocol.learning_rate)

    @classmethod
    def stages(cls, protocol):
        """Return the stages, with their shares of the epochs."""
        first = TwoStageOptions.model_validate(protocol.options).first_stage
        return Stage("autoencoder", first), Stage("prior", 1 - first)

    def begin_stage(self, stage, images):
        """Freeze the autoencoder when the prior is trained."""
        self.encoder.requires_grad_(stage == "autoencoder")

    def training_step(self, images, step):
        """Train the autoencoder on images ``(N, C, H, W)``, or the prior once it is finished.

        Each stage returns its own loss: losses that a step does not compute are left out.
        """
        if step.stage == "autoencoder":
            loss = F.mse_loss(self.reconstruct(images, None), images)
            update(self.autoencoder_optimizer, loss)
            return {"reconstruction_loss": loss.detach()}
        with torch.no_grad():
            self.encoder.eval()  # batch norm too stays as the first stage left it
            spikes = self.encode(images, None)
            self.encoder.train()
        log_odds = self.prior[:, None].expand_as(spikes)
        loss = F.binary_cross_entropy_with_logits(log_odds, spikes)
        update(self.prior_optimizer, loss)
        return {"prior_loss": loss.detach()}

    def encode(self, images, generator):
        """Return latent spike trains ``(T, N, D)`` of images ``(N, C, H, W)``."""
        pixels = images.flatten(1)
        return self.encoder(pixels.expand(self.protocol.time_steps, *pixels.shape)).to(images)

    def decode(self, latents):
        """Return images ``(N, C, H, W)`` of latent spike trains ``(T, N, D)``."""
        return self.decoder(latents.mean(0)).tanh()

    def reconstruct(self, images, generator):
        """Return reconstructions of images, both ``(N, C, H, W)``."""
        return self.decode(self.encode(images, generator))

    def sample_latents(self, n, generator):
        """Return spike trains ``(T, n, D)`` drawn from the prior."""
        rates = self.prior.sigmoid()[:, None].expand(-1, n, -1)
        return torch.bernoulli(rates, generator=generator)

    def sample(self, n, generator):
        """Return ``n`` images ``(n, C, H, W)``."""
        return self.decode(self.sample_latents(n, generator))

    def parts(self):
        """Return the parts, for which operations are counted one by one."""
        return {"encoder": [self.encoder], "decoder": [self.decoder]}


def update(optimizer, loss):
    """Take one step of an optimiser down a loss, a scalar."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
