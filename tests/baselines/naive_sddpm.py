"""SDDPM's U-Net with a loop over time around every layer: what the model is held against.

The noisy images and the embedded diffusion step go through every layer at each time step there.
Nothing is shared with the model but the names of its weights.
"""

import math

import torch
import torch.nn.functional as F
from naive_vq import Fire, Network


def neurons(currents):
    """Neurons that add up their currents, fire at 1 and start again from 0."""
    potential, spikes = torch.zeros_like(currents[0]), []
    for current in currents:
        potential = potential + current
        spikes.append(Fire.apply(potential))
        potential = potential * (1 - spikes[-1])
    return torch.stack(spikes)


def swish(values):
    return values / (1 + torch.exp(-values))


class UNet(Network):
    """The U-Net of a model, as functions of the time steps' maps ``(T, N, C, H, W)``."""

    def noise(self, images, steps):
        embedded = self.embedded(steps)
        maps = neurons(self.normed("first", self.each("first.synapse", self.repeated(images))))
        maps = self.normed("second", self.each("second.synapse", maps))
        kept, layer = [maps], 0
        for level in range(4):
            for _ in range(2):
                maps, layer = self.block(f"down.{layer}", maps, embedded), layer + 1
                kept.append(maps)
            if level < 3:
                maps, layer = self.convolution(f"down.{layer}", maps, stride=2), layer + 1
                kept.append(maps)
        for place in range(2):
            maps = self.block(f"middle.{place}", maps, embedded)
        layer = 0
        for level in range(4):
            for _ in range(3):
                joined = torch.stack(
                    [torch.cat(pair, dim=1) for pair in zip(maps, kept.pop(), strict=True)]
                )
                maps, layer = self.block(f"up.{layer}", joined, embedded), layer + 1
            if level < 3:
                spikes = neurons(maps)
                doubled = torch.stack(
                    [
                        step.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                        for step in spikes
                    ]
                )
                maps = self.normed(f"up.{layer}", self.each(f"up.{layer}.synapse.1", doubled))
                layer += 1
        assert not kept
        return self.read_out(maps)

    def embedded(self, steps):
        size = self.weights["unet.embedding.hidden.weight"].shape[1]
        rows = []
        for step in steps.tolist():
            angles = [step * 10_000 ** (-place / size) for place in range(0, size, 2)]
            rows.append([wave(angle) for angle in angles for wave in (math.sin, math.cos)])
        hidden = swish(self.linear("embedding.hidden", torch.tensor(rows)))
        return self.linear("embedding.output", hidden)

    def linear(self, name, values):
        weight, bias = (self.weights[f"unet.{name}.{key}"] for key in ("weight", "bias"))
        return values @ weight.T + bias

    def each(self, name, maps, stride=1):
        weight, bias = (self.weights[f"unet.{name}.{key}"] for key in ("weight", "bias"))
        padding = weight.shape[-1] // 2
        return torch.stack([F.conv2d(step, weight, bias, stride, padding) for step in maps])

    def normed(self, name, maps):
        mean, variance, scale, shift = (
            self.weights[f"unet.{name}.norm.{key}"]
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        flat = F.batch_norm(maps.flatten(0, 1), mean, variance, scale, shift, self.training)
        return flat.unflatten(0, maps.shape[:2])

    def convolution(self, name, maps, stride=1):
        return self.normed(name, self.each(f"{name}.synapse", neurons(maps), stride))

    def block(self, name, maps, embedded):
        first = self.convolution(f"{name}.conv1", maps)
        shift = self.linear(f"{name}.projection", swish(embedded))
        second = self.convolution(
            f"{name}.conv2", torch.stack([step + shift[..., None, None] for step in first])
        )
        if f"unet.{name}.shortcut.weight" in self.weights:
            maps = self.each(f"{name}.shortcut", maps)
        return second + maps

    def read_out(self, maps):
        images = self.each("last.to_image", swish(self.normed("last", maps)))
        refined = self.normed("last.refinement", self.each("last.refinement.synapse", images))
        images, potential = swish(refined) + images, 0
        for step in images:
            potential = 0.8 * potential + step
        return potential
