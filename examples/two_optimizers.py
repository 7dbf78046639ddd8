"""A spiking GAN: a model with two optimisers, which returns two losses by name."""

import torch
import torch.nn.functional as F
from torch import nn

from bench.backend import protocol_neuron
from bench.model import GenerativeModel

HIDDEN = 64


class TwoOptimizers(GenerativeModel):
    """A GAN with one spiking layer in the generator, and a discriminator without spikes."""

    version = "1"
    capabilities = frozenset({"sample"})
    spiking = True
    real_latents = True  # latents are Gaussian numbers, not spike trains

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        size = torch.Size(image_shape).numel()
        # The backend builds the layers that spike; their spikes and operations are counted.
        self.hidden = backend.linear(protocol.latent_size, HIDDEN, protocol_neuron(protocol))
        self.image = nn.Sequential(nn.Linear(HIDDEN, size), nn.Tanh(), nn.Unflatten(1, image_shape))
        self.discriminator = nn.Sequential(
            nn.Flatten(), nn.Linear(size, HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, 1)
        )
        # Every attribute with a state_dict, such as an optimiser, is in the checkpoints.
        generator = [*self.hidden.parameters(), *self.image.parameters()]
        self.generator_optimizer = torch.optim.Adam(generator, lr=protocol.learning_rate)
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminator.parameters(), lr=protocol.learning_rate
        )

    def training_step(self, images, step):
        """Train the discriminator on images ``(N, C, H, W)``, then the generator."""
        latents = torch.randn(len(images), self.protocol.latent_size, device=images.device)
        generated = self.generate(latents)
        real, fake = self.discriminator(images), self.discriminator(generated.detach())
        discriminator_loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        update(self.discriminator_optimizer, discriminator_loss)

        generator_loss = F.softplus(-self.discriminator(generated)).mean()
        update(self.generator_optimizer, generator_loss)
        return {
            "generator_loss": generator_loss.detach(),
            "discriminator_loss": discriminator_loss.detach(),
        }

    def sample(self, n, generator):
        """Return ``n`` images ``(n, C, H, W)``; ``generator`` is the source of every draw."""
        size = n, self.protocol.latent_size
        return self.generate(torch.randn(size, generator=generator, device=generator.device))

    def generate(self, latents):
        """Return images ``(N, C, H, W)`` of latents ``(N, D)``, the input of each time step."""
        spikes = self.hidden(latents.expand(self.protocol.time_steps, *latents.shape))
        return self.image(spikes.to(latents).mean(0))

    def parts(self):
        """Return the parts, for which operations are counted one by one."""
        return {
            "generator": [self.hidden, self.image],
            "discriminator": [self.discriminator],
        }

    def sampling_modules(self):
        """Return what ``sample`` runs: the discriminator is for training only."""
        return [self.hidden, self.image]


def update(optimizer, loss):
    """Take one step of an optimiser down a loss, a scalar."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
