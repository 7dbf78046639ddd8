"""Encoder and decoder shared by FSVAE and ESVAE (arXiv:2110.00375)."""

from collections import OrderedDict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from baselines.fused.synapses import Downsampling, SpikeLinear, Upsampling
from baselines.layers import (
    DirectCodingLayer,
    MembraneReadout,
    SpikingLayer,
    TimeDependentBatchNorm,
)
from bench.model import ImageShape, Protocol, SpikingNeuron

SMALLEST_MAP = 2


def convolution_channels(image_size: int) -> list[int]:
    """Output channels of the encoder's convolutions: four for 32x32 images, five for 64x64.

    Raises:
        KeyError: any other size; the models say so in ``unsupported``.
    """
    return {32: [32, 64, 128, 256], 64: [32, 64, 128, 256, 512]}[image_size]


def unsupported_images(image_shape: ImageShape) -> str | None:
    """Why the papers' networks cannot take these images ``(C, H, W)``, or None if they can."""
    channels, height, width = image_shape
    if height == width and height in {32, 64} and channels in {1, 3}:
        return None
    return (
        f"built for 32x32 and 64x64 images of 1 or 3 channels, not {channels}x{height}x{width} "
        "(image_size in the protocol)"
    )


def to_image(inputs: int, channels: int) -> nn.ConvTranspose2d:
    """The last transposed convolution, which keeps height and width."""
    return nn.ConvTranspose2d(inputs, channels, kernel_size=3, padding=1)


class SpikingLayers:
    """Builds spiking layers for one protocol and backend."""

    def __init__(self, protocol: Protocol, backend: type[SpikingNeuron]) -> None:
        self.protocol = protocol
        self.backend = backend

    def neuron(self) -> SpikingNeuron:
        """A layer of LIF neurons with the protocol's constants."""
        return self.backend(
            self.protocol.membrane_decay, self.protocol.threshold, self.protocol.surrogate_window
        )

    def norm(self, features: int, alpha: float) -> TimeDependentBatchNorm:
        """tdBN scaled by ``alpha * threshold``."""
        return TimeDependentBatchNorm(features, alpha * self.protocol.threshold)

    def linear(self, inputs: int, outputs: int, alpha: float = 1.0) -> SpikingLayer:
        """A fully connected spiking layer."""
        synapse = SpikeLinear(inputs, outputs)
        if self.backend.memory_format == torch.channels_last:
            synapse.weight.data = synapse.weight.data.mT.contiguous().mT
        return SpikingLayer(synapse, self.norm(outputs, alpha), self.neuron())

    def convolution(
        self, build: Callable[[int, int, bool], nn.Module], inputs: int, outputs: int
    ) -> SpikingLayer:
        """A convolutional spiking layer that takes spikes; ``build`` makes the synapses."""
        synapse = self._laid_out(build(inputs, outputs, True))
        return SpikingLayer(synapse, self.norm(outputs, 1.0), self.neuron())

    def direct_coding(self, inputs: int, outputs: int) -> DirectCodingLayer:
        """The encoder's first layer."""
        synapse = self._laid_out(Downsampling(inputs, outputs))
        norm = self.norm(outputs, 1.0)
        return DirectCodingLayer(synapse, norm, self.neuron(), self.protocol.time_steps)

    def _laid_out(self, synapse: nn.Module) -> nn.Module:
        """The synapses with their weights as the backend's layout wants them."""
        return synapse.to(memory_format=self.backend.memory_format)


class SpikingEncoder(nn.Module):
    """Images ``(N, C, H, W)`` to latent spikes ``(T, N, latent_size)``."""

    def __init__(self, image_shape: ImageShape, layers: SpikingLayers) -> None:
        super().__init__()
        channels = convolution_channels(image_shape[1])
        convolutions: OrderedDict[str, nn.Module] = OrderedDict()
        convolutions["conv1"] = layers.direct_coding(image_shape[0], channels[0])
        for i in range(1, len(channels)):
            convolutions[f"conv{i + 1}"] = layers.convolution(
                Downsampling, channels[i - 1], channels[i]
            )
        self.convolutions = nn.Sequential(convolutions)
        features = channels[-1] * SMALLEST_MAP**2
        self.linear = layers.linear(features, layers.protocol.latent_size)

    def forward(self, images: Tensor) -> Tensor:
        """Latent spikes."""
        return self.linear(self.convolutions(images).flatten(2))


class SpikingDecoder(nn.Module):
    """Latent spikes ``(T, N, latent_size)`` to images ``(N, C, H, W)`` in [-1, 1]."""

    def __init__(self, image_shape: ImageShape, layers: SpikingLayers) -> None:
        super().__init__()
        channels = convolution_channels(image_shape[1])[::-1]
        self.smallest_map = (channels[0], SMALLEST_MAP, SMALLEST_MAP)
        self.linear = layers.linear(layers.protocol.latent_size, channels[0] * SMALLEST_MAP**2)
        outputs = [*channels[1:], channels[-1]]
        self.convolutions = nn.Sequential(
            OrderedDict(
                (f"deconv{i + 1}", layers.convolution(Upsampling, inputs, features))
                for i, (inputs, features) in enumerate(zip(channels, outputs, strict=True))
            )
        )
        self.readout = MembraneReadout(to_image(channels[-1], image_shape[0]))

    def forward(self, latents: Tensor) -> Tensor:
        """Images."""
        return self.readout(self._spikes(latents))

    def prefixes(self, latents: Tensor) -> Iterator[Tensor]:
        """Images of the first t = 1..T steps; in evaluation mode, where no step changes another."""
        yield from self.readout.prefixes(self._spikes(latents))

    def _spikes(self, latents: Tensor) -> Tensor:
        return self.convolutions(self.linear(latents).unflatten(2, self.smallest_map))
