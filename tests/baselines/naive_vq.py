"""VQ-SVAE and SDID with a loop over time around every layer: what the models are held against.

The neurons are written in the official code's terms, ``u + (x - u) / 2`` with threshold 1, which a
potential equal to it reaches. Inputs are repeated at each time step and go through every layer
there. Nothing is shared with the models but the names of their weights.
"""

import math

import torch
import torch.nn.functional as F

STRIDE = {"stride": 2, "padding": 1}


class Fire(torch.autograd.Function):
    """Step function at 1, with the arctangent of SpikingJelly's default as surrogate gradient."""

    @staticmethod
    def forward(ctx, potential):
        ctx.save_for_backward(potential)
        return (potential >= 1).to(potential.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (potential,) = ctx.saved_tensors
        return gradient / (1 + (math.pi * (potential - 1)) ** 2)


def neurons(currents):
    potential, spikes = torch.zeros_like(currents[0]), []
    for current in currents:
        potential = potential + (current - potential) / 2
        spikes.append(Fire.apply(potential))
        potential = potential * (1 - spikes[-1])
    return torch.stack(spikes)


class Network:
    """The weights of a model as leaves, and its layers."""

    def __init__(self, model):
        self.time_steps, self.training = model.protocol.time_steps, model.training
        trained = {name for name, value in model.named_parameters() if value.requires_grad}
        self.weights = {
            name: value.detach().clone().requires_grad_(name in trained)
            for name, value in model.state_dict().items()
        }

    def repeated(self, values):
        return torch.stack([values] * self.time_steps)

    def layer(self, name, spikes, convolution=F.conv2d, **geometry):
        weight, bias = (self.weights[f"{name}.synapse.{key}"] for key in ("weight", "bias"))
        currents = torch.stack([convolution(step, weight, bias, **geometry) for step in spikes])
        mean, variance, scale, shift = (
            self.weights[f"{name}.norm.{key}"]
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        normed = F.batch_norm(
            currents.flatten(0, 1), mean, variance, scale, shift, training=self.training
        )
        return neurons(normed.unflatten(0, currents.shape[:2]))


class VQSVAE(Network):
    def encoder_spikes(self, images):
        spikes = self.layer("encoder.conv1", self.repeated(images / 2), **STRIDE)
        return self.layer("encoder.conv3", self.layer("encoder.conv2", spikes, **STRIDE))

    def feature(self, spikes):
        alpha, last = self.weights["quantiser.alpha"], torch.zeros_like(spikes[0])
        for spike in spikes:
            last = 0.8 * last + spike
        return (1 - alpha) * last + alpha * sum(spikes) / len(spikes)

    def codes(self, feature):
        codebook = self.weights["quantiser.codebook"]
        chosen = torch.empty_like(feature)
        for n, _, y, x in torch.ones_like(feature[:, :1]).nonzero().tolist():
            distances = ((codebook - feature[n, :, y, x]) ** 2).sum(1)
            chosen[n, :, y, x] = codebook[distances.argmin()]
        return chosen

    def generated(self, codes):
        return self.layer("spike_generator.conv", self.repeated(codes))

    def output(self, spikes):
        turned = {"convolution": F.conv_transpose2d, **STRIDE, "output_padding": 1}
        spikes = self.layer("decoder.deconv1", spikes, **turned)
        potential = 0
        for spike in self.layer("decoder.deconv2", spikes, **turned):
            weight, bias = (
                self.weights[f"decoder.readout.synapse.{k}"] for k in ("weight", "bias")
            )
            potential = 0.8 * potential + F.conv_transpose2d(spike, weight, bias, padding=1)
        return torch.tanh(potential)

    def potentials(self, spikes):
        found = [spikes[0] / 2]
        for spike in spikes[1:]:
            found.append(found[-1] + (spike - found[-1]) / 2)
        return torch.stack(found)

    def losses(self, images):
        spikes = self.encoder_spikes(images)
        feature = self.feature(spikes)
        codes = self.codes(feature)
        generated = self.generated(feature + codes.detach() - feature.detach())
        error = ((self.output(generated) - images / 2) ** 2).mean()
        pairs = (feature, codes), (self.potentials(spikes), self.potentials(generated))
        terms = [
            ((target.detach() - found) ** 2).mean() + ((target - found.detach()) ** 2).mean() / 4
            for target, found in pairs
        ]
        return [error / self.weights["image_variance"], *terms]

    def reconstruction(self, images):
        generated = self.generated(self.codes(self.feature(self.encoder_spikes(images))))
        return torch.clamp(2 * self.output(generated), -1, 1)


class Denoiser(Network):
    def logits(self, tokens, step):
        planes = torch.stack([tokens, step[:, None, None].expand_as(tokens)], 1)
        planes = planes.to(self.weights["denoiser.conv6.weight"].dtype)
        first = spikes = self.layer("denoiser.conv1", self.repeated(planes), padding=1)
        for place in range(2, 6):
            spikes = self.layer(f"denoiser.conv{place}", spikes, padding=1)
        weight, bias = (self.weights[f"denoiser.conv6.{key}"] for key in ("weight", "bias"))
        steps = [
            F.conv2d(torch.cat(both, 1), weight, bias, padding=1)
            for both in zip(spikes, first, strict=True)
        ]
        return sum(steps) / len(steps)
