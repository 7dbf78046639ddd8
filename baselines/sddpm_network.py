"""SDDPM's spiking U-Net, which predicts the noise in images (arXiv:2306.17046, official code).

The residual stream between the layers is real-valued; neurons stand before each convolution of it.
Time steps of the neurons are the first axis; steps of the diffusion are an input.
"""

import math
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import init

from baselines.convolution_layers import convolution3, repeated_input_layer
from bench.backend import NeuronSpec, SpikingBackend, TimeDependentBatchNorm, readout_weights

LEVEL_WIDTHS = 1, 2, 2, 4
"""Channels of the levels, relative to the first."""
BLOCKS = 2
"""Residual blocks of a level on the way down; on the way up there is one more."""
REDUCTION = 2 ** (len(LEVEL_WIDTHS) - 1)
"""Height and width of an image, relative to the map of the lowest level."""
EMBEDDING_WIDTH = 4
"""Features of the embedded diffusion step, relative to the channels of the first level."""
LONGEST_PERIOD = 10_000
SMALL_GAIN = 1e-5
Synapse = TypeVar("Synapse", nn.Linear, nn.Conv2d)


class UNet(nn.Module):
    """Noisy images ``(N, C, H, W)`` and their diffusion steps to the noise in them.

    Height and width are multiples of 8. The images are the input at each time step, so the first
    convolution runs once, and so does the embedding of the diffusion step.

    Args:
        channels: image channels C.
        width: channels of the first level, an even number; 128 in the official code.
        spec: neuron of all layers.
        backend: builds the neurons.
        time_steps: number of time steps T of the neurons.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        spec: NeuronSpec,
        backend: SpikingBackend,
        time_steps: int,
    ) -> None:
        super().__init__()
        self.embedding = StepEmbedding(width)
        first = xavier(convolution3(channels, width))
        self.first = repeated_input_layer(first, spec, backend, time_steps)
        self.second = NormalisedSynapse(convolution3(width, width), width)
        maker = _LayerMaker(width, spec, backend)
        self.down = nn.ModuleList(maker.down())
        self.middle = nn.ModuleList([maker.block(maker.channels) for _ in range(2)])
        self.up = nn.ModuleList(maker.up())
        self.last = NoiseReadout(maker.channels, channels)

    def forward(self, images: Tensor, step: Tensor) -> Tensor:
        """Return the predicted noise ``(N, C, H, W)``.

        Args:
            images: noisy images ``(N, C, H, W)``.
            step: diffusion step of each image, int64 ``(N,)`` in 0..999.
        """
        embedded = self.embedding(step)
        currents = self.second(self.first(images))
        passed = [currents]
        for layer in self.down:
            currents = _run(layer, currents, embedded)
            passed.append(currents)
        for layer in self.middle:
            currents = _run(layer, currents, embedded)
        for layer in self.up:
            if isinstance(layer, ResidualBlock):
                currents = torch.cat([currents, passed.pop()], dim=2)
            currents = _run(layer, currents, embedded)
        noise: Tensor = self.last(currents)
        return noise


def _run(layer: nn.Module, currents: Tensor, embedded: Tensor) -> Tensor:
    """Return the currents ``(T, N, C', H', W')`` of a layer; blocks take the diffusion step too."""
    is_block = isinstance(layer, ResidualBlock)
    result: Tensor = layer(currents, embedded) if is_block else layer(currents)
    return result


class StepEmbedding(nn.Module):
    """Diffusion steps ``(N,)`` to features ``(N, 4 * width)``: sines and cosines, then an MLP.

    The sines and cosines have frequencies from 1 down to nearly 1 / 10,000 per step.
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        exponents = torch.arange(0, width, 2) / width
        frequencies = torch.exp(-math.log(LONGEST_PERIOD) * exponents)
        self.register_buffer("frequencies", frequencies, persistent=False)
        features = EMBEDDING_WIDTH * width
        self.hidden = xavier(nn.Linear(width, features))
        self.activation = nn.SiLU()
        self.output = xavier(nn.Linear(features, features))

    def forward(self, step: Tensor) -> Tensor:
        """Return features ``(N, 4 * width)`` of diffusion steps ``(N,)``."""
        angles = step[:, None] * self.frequencies
        waves = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
        features: Tensor = self.output(self.activation(self.hidden(waves)))
        return features


class NormalisedSynapse(nn.Module):
    """A synapse and batch norm over time, batch and space, for each time step.

    ``(T, N, C, H, W)`` to ``(T, N, C', H', W')``.

    Args:
        synapse: module from ``(R, C, H, W)`` to ``(R, C', H', W')``, R any batch size.
        outputs: its output channels C'.
    """

    def __init__(self, synapse: nn.Module, outputs: int) -> None:
        super().__init__()
        self.synapse = synapse
        self.norm = TimeDependentBatchNorm(outputs, 1.0)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return normalised currents ``(T, N, C', H', W')`` of inputs ``(T, N, C, H, W)``."""
        currents: Tensor = self.norm(self.synapse(inputs.flatten(0, 1)))
        return currents.unflatten(0, inputs.shape[:2])


class Convolution(NormalisedSynapse):
    """Neurons, a 3x3 convolution and batch norm: currents ``(T, N, C, H, W)`` to the same.

    Args:
        inputs: input channels.
        outputs: output channels.
        neuron: the layer's neurons.
        stride: 2 to halve height and width.
        upsampled: True to double height and width of the spikes first, by repeating them.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        neuron: nn.Module,
        *,
        stride: int = 1,
        upsampled: bool = False,
    ) -> None:
        convolution: nn.Module = xavier(convolution3(inputs, outputs, stride))
        if upsampled:
            convolution = nn.Sequential(nn.Upsample(scale_factor=2), convolution)
        super().__init__(convolution, outputs)
        self.neuron = neuron

    def forward(self, inputs: Tensor) -> Tensor:
        """Return currents ``(T, N, C', H', W')`` of currents ``(T, N, C, H, W)``."""
        return super().forward(self.neuron(inputs))


class ResidualBlock(nn.Module):
    """Two convolutions; the diffusion step is added between them, the input after them.

    Where the numbers of channels differ, the input goes through a 1x1 convolution, as it is, not
    as spikes.

    Args:
        inputs: input channels C.
        outputs: output channels C'.
        features: features of the embedded diffusion step.
        spec: neuron of both layers.
        backend: builds the neurons.
    """

    def __init__(
        self, inputs: int, outputs: int, features: int, spec: NeuronSpec, backend: SpikingBackend
    ) -> None:
        super().__init__()
        self.conv1 = Convolution(inputs, outputs, backend.neuron(spec))
        self.activation = nn.SiLU()
        self.projection = xavier(nn.Linear(features, outputs))
        self.conv2 = Convolution(outputs, outputs, backend.neuron(spec))
        self.shortcut = xavier(nn.Conv2d(inputs, outputs, 1)) if inputs != outputs else None

    def forward(self, inputs: Tensor, embedded: Tensor) -> Tensor:
        """Return currents ``(T, N, C', H, W)``.

        Args:
            inputs: currents ``(T, N, C, H, W)``.
            embedded: features of the diffusion steps, ``(N, F)``.
        """
        shift = self.projection(self.activation(embedded))[:, :, None, None]
        currents: Tensor = self.conv2(self.conv1(inputs) + shift)
        if self.shortcut is None:
            return currents + inputs
        return currents + self.shortcut(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])


class NoiseReadout(nn.Module):
    """Currents ``(T, N, C', H, W)`` to noise ``(N, C, H, W)``: ``sum_t 0.8^(T - t) * h_t``.

    ``h = g + swish(norm(conv(g)))`` for ``g = conv(swish(norm(currents)))``, at each time step.

    Args:
        inputs: channels C' of the currents.
        channels: image channels C.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.norm = TimeDependentBatchNorm(inputs, 1.0)
        self.activation = nn.SiLU()
        self.to_image = xavier(convolution3(inputs, channels), SMALL_GAIN)
        self.refinement = NormalisedSynapse(convolution3(channels, channels), channels)

    def forward(self, currents: Tensor) -> Tensor:
        """Return noise ``(N, C, H, W)`` of currents ``(T, N, C', H, W)``."""
        sizes = currents.shape[:2]
        active = self.activation(self.norm(currents.flatten(0, 1)))
        images = self.to_image(active).unflatten(0, sizes)
        images = images + self.activation(self.refinement(images))
        weights = readout_weights(len(images)).to(images)
        return torch.einsum("t,tnchw->nchw", weights, images)


class _LayerMaker:
    """Makes the layers between the first two and the last, in order.

    Attributes:
        channels: output channels of the layer that was made last.
    """

    def __init__(self, width: int, spec: NeuronSpec, backend: SpikingBackend) -> None:
        self.channels = width
        self._widths = [factor * width for factor in LEVEL_WIDTHS]
        self._features = EMBEDDING_WIDTH * width
        self._passed = [width]
        self._spec, self._backend = spec, backend

    def down(self) -> Iterator[nn.Module]:
        """Yield the layers of the way down, whose outputs are passed to the way up."""
        for level, outputs in enumerate(self._widths):
            for _ in range(BLOCKS):
                yield self._passing(self.block(outputs))
            if level < len(self._widths) - 1:
                yield self._passing(self._resampling(stride=2))

    def up(self) -> Iterator[nn.Module]:
        """Yield the layers of the way up."""
        for level, outputs in reversed(list(enumerate(self._widths))):
            for _ in range(BLOCKS + 1):
                yield self.block(outputs, self._passed.pop())
            if level > 0:
                yield self._resampling(upsampled=True)

    def block(self, outputs: int, passed: int = 0) -> ResidualBlock:
        """Return a block, whose input has ``passed`` channels more than the last output."""
        inputs, self.channels = self.channels + passed, outputs
        return ResidualBlock(inputs, outputs, self._features, self._spec, self._backend)

    def _resampling(self, *, stride: int = 1, upsampled: bool = False) -> Convolution:
        neuron = self._backend.neuron(self._spec)
        return Convolution(self.channels, self.channels, neuron, stride=stride, upsampled=upsampled)

    def _passing(self, layer: nn.Module) -> nn.Module:
        self._passed.append(self.channels)
        return layer


def xavier(synapse: Synapse, gain: float = 1.0) -> Synapse:
    """Return a synapse after drawing its weights by Xavier's rule and setting its bias to 0."""
    init.xavier_uniform_(synapse.weight, gain)
    assert synapse.bias is not None
    init.zeros_(synapse.bias)
    return synapse
