"""Models and neurons that plug-ins of the tests derive theirs from."""

import torch
from torch import nn

from bench import GenerativeModel
from bench.backend import SpikingBackend, SpikingNeuron


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


class SoftNeuron(SpikingNeuron):
    """Another neuron than it is asked for: a spike subtracts the threshold, and resets nothing."""

    def integrate(self, currents, membrane):
        membrane = torch.zeros_like(currents[0]) if membrane is None else membrane
        spikes = []
        for current in currents:
            potential = self.spec.decay * membrane + current
            spikes.append(self.spec.fire(potential))
            membrane = potential - self.spec.threshold * spikes[-1]
        return torch.stack(spikes), membrane


class SoftBackend(SpikingBackend):
    """Builds neurons with the soft reset."""

    def neuron(self, spec):
        return SoftNeuron(spec)
