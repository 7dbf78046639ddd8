"""Models that plug-ins of the tests derive theirs from."""

import torch
from torch import nn

from bench import GenerativeModel


class Steady(GenerativeModel):
    """A model that ignores its input."""

    version = "1"
    capabilities = frozenset({"sample", "reconstruct"})

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.image = nn.Parameter(torch.zeros(image_shape))

    def training_step(self, images, step):
        return {"loss": 1.0}

    def reconstruct(self, images, generator):
        return self.image.clamp(-1, 1).expand_as(images)

    def sample(self, n, generator):
        return self.image.clamp(-1, 1).expand(n, *self.image.shape)
