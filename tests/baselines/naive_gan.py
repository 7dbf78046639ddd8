"""SWGAN, SGAD and SGAN with a loop over time around every layer: what the models are held against.

The neurons are written as in the official code's terms, ``u + (x - u) / 2`` with threshold 1, every
image is repeated at each time step and goes through every layer there, and the generator runs again
for its own step. Nothing is shared with the models but the names of their weights.
"""

import math

import torch
import torch.nn.functional as F

T_OF_CODE = 16


class Fire(torch.autograd.Function):
    """Step function at 1, with the arctangent of SpikingJelly's default as surrogate gradient."""

    @staticmethod
    def forward(ctx, potential):
        ctx.save_for_backward(potential)
        return (potential > 1).to(potential.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (potential,) = ctx.saved_tensors
        return gradient / (1 + (math.pi * (potential - 1)) ** 2)


class Network:
    """The weights of a model as leaves, and its layers, each with a state for its neurons."""

    def __init__(self, model):
        self.time_steps = model.protocol.time_steps
        self.training = model.training
        self.batch_statistics = model.model_options.statistics == "batch"
        self.weights = {
            name: value.detach().clone().requires_grad_(name in dict(model.named_parameters()))
            for name, value in model.state_dict().items()
        }
        self.state = {}

    def of(self, part):
        return [w for name, w in self.weights.items() if w.requires_grad and name.startswith(part)]

    def norm(self, name, values):
        weight, bias, mean, variance = (
            self.weights[f"{name}.norm.{key}"]
            for key in ("weight", "bias", "running_mean", "running_var")
        )
        if self.training:
            return F.batch_norm(values, mean, variance, weight, bias, training=True)
        if self.batch_statistics and not name.startswith("discriminator"):
            return F.batch_norm(values, None, None, weight, bias, training=True)
        return F.batch_norm(values, mean, variance, weight, bias)

    def neurons(self, name, currents):
        potential = self.state.get(name, torch.zeros_like(currents))
        potential = potential + (currents - potential) / 2
        spikes = Fire.apply(potential)
        self.state[name] = potential * (1 - spikes.detach())
        return spikes

    def integrated(self, name, currents):
        potential = self.state.get(name, torch.zeros_like(currents))
        self.state[name] = potential + (currents - potential) / 2
        return self.state[name]

    def synapse(self, name, inputs):
        weight, bias = self.weights[f"{name}.synapse.weight"], self.weights[f"{name}.synapse.bias"]
        if weight.dim() == 2:
            return F.linear(inputs, weight, bias)
        if weight.shape[-1] == 4:
            return F.conv_transpose2d(inputs, weight, bias, stride=2, padding=1)
        return F.conv2d(inputs, weight, bias)

    def before_the_readout(self, latents):
        """The generator's spikes at each time step."""
        self.state = {}
        deconvolutions = sorted(
            {".".join(k.split(".")[:3]) for k in self.weights if k.startswith("generator.deconv")}
        )
        for _ in range(self.time_steps):
            values = latents
            for name in ("generator.linear1", "generator.linear2"):
                values = self.neurons(name, self.norm(name, self.synapse(name, values)))
            side = math.isqrt(values.shape[1] // 128)
            values = values.reshape(-1, 128, side, side)
            for name in deconvolutions:
                values = self.neurons(name, self.norm(name, self.synapse(name, values)))
            yield values


class SWGAN(Network):
    def generated(self, latents):
        for spikes in self.before_the_readout(latents):
            current = self.synapse("readout.integrator", spikes)
            potential = self.integrated("readout", current)
        return torch.sigmoid(potential / T_OF_CODE)

    def critic(self, images):
        self.state = {}
        for _ in range(self.time_steps):
            values = images
            for name in ("discriminator.convolution1", "discriminator.convolution2"):
                values = self.neurons(name, self.norm(name, self.synapse(name, values)))
                values = F.avg_pool2d(values, 2)
            values = self.synapse("discriminator.linear", values.flatten(1))
            values = self.neurons("discriminator.linear", values)
            current = self.synapse("discriminator.integrator", values)
            potential = self.integrated("discriminator.integrator", current)
        return potential[:, 0] / T_OF_CODE

    def discriminator_loss(self, images, generated):
        return self.critic(images).mean() - self.critic(generated).mean()

    def generator_loss(self, generated):
        return self.critic(generated).mean()


class SGAD(SWGAN):
    def generated(self, latents):
        memory = None
        for spikes in self.before_the_readout(latents):
            image = torch.sigmoid(self.synapse("readout", spikes))
            memory = image if memory is None else self.attended(memory, image)
        return memory

    def attended(self, memory, image):
        flat, new = memory.flatten(1), image.flatten(1)
        if "readout.shared.0.weight" in self.weights:
            flat, new = (torch.relu(self.linear("readout.shared.0", each)) for each in (flat, new))
        query = self.linear("readout.query", flat)
        scores = [
            (query * self.linear("readout.key", each)).sum(1) / 256**0.5 for each in (flat, new)
        ]
        largest = torch.maximum(*scores).detach()
        kept, added = (torch.exp(score - largest)[:, None, None, None] for score in scores)
        return (kept * memory + added * image) / (kept + added)

    def linear(self, name, values):
        return F.linear(values, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])


class SGAN(Network):
    def generated(self, latents):
        steps = [
            self.neurons("readout", self.synapse("readout.layer", spikes))
            for spikes in self.before_the_readout(latents)
        ]
        return torch.stack(steps)

    def logits(self, steps):
        self.state = {}
        for image in steps:
            values = self.synapse("discriminator.linear", image.flatten(1))
            values = self.neurons("discriminator.linear", values)
            current = self.synapse("discriminator.integrator", values)
            potential = self.integrated("discriminator.integrator", current)
        return potential[:, 0]

    def discriminator_loss(self, images, generated):
        real = torch.sigmoid(self.logits([images] * self.time_steps))
        fake = torch.sigmoid(self.logits(generated))
        return -(real.log().sum() + (1 - fake).log().sum()) / 2

    def generator_loss(self, generated):
        return -torch.sigmoid(self.logits(generated)).log().sum()


class Trainer:
    """Steps of RMSprop, written out, for the discriminator and then for the generator."""

    def __init__(self, network, rate, discriminator_rate):
        self.network = network
        self.rates = {"discriminator": discriminator_rate, "generator": rate, "readout": rate}
        self.squares = {}

    def step(self, images, latents):
        network, scaled = self.network, (images + 1) / 2
        first = network.discriminator_loss(scaled, network.generated(latents).detach())
        self.descend(first, "discriminator")
        second = network.generator_loss(network.generated(latents))
        self.descend(second, "generator", "readout")
        return first.item(), second.item()

    def descend(self, loss, *parts):
        for part in parts:
            weights = self.network.of(part)
            gradients = torch.autograd.grad(loss, weights, retain_graph=True)
            for weight, gradient in zip(weights, gradients, strict=True):
                square = self.squares.get(weight, torch.zeros_like(weight))
                self.squares[weight] = 0.99 * square + 0.01 * gradient**2
                with torch.no_grad():
                    weight -= self.rates[part] * gradient / (self.squares[weight] ** 0.5 + 1e-8)
