"""Encoder and decoder shared by FSVAE and ESVAE (arXiv:2110.00375)."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol as StructuralType

from torch import Tensor, nn

from bench.backend import SpikingBackend, protocol_neuron
from bench.model import ImageShape
from bench.protocol import Protocol

SMALLEST_MAP = 2


def convolution_channels(image_size: int) -> list[int]:
    """Return the output channels of the encoder's convolutions, for 32x32 or 64x64 images.

    Raises:
        KeyError: another size; models say so in ``unsupported``.

    >>> convolution_channels(32)
    [32, 64, 128, 256]
    """
    return {32: [32, 64, 128, 256], 64: [32, 64, 128, 256, 512]}[image_size]


def unsupported_images(image_shape: ImageShape) -> str | None:
    """Return why the papers' networks cannot take images ``(C, H, W)``; None if they can."""
    channels, height, width = image_shape
    if height == width and height in {32, 64} and channels in {1, 3}:
        return None
    return (
        f"built for 32x32 and 64x64 images of 1 or 3 channels, not {channels}x{height}x{width} "
        "(image_size in the protocol)"
    )


class SpikingEncoder(nn.Module):
    """Images ``(N, C, H, W)`` to latent spikes ``(T, N, latent_size)``."""

    def __init__(
        self, image_shape: ImageShape, protocol: Protocol, backend: SpikingBackend
    ) -> None:
        super().__init__()
        spec, channels = protocol_neuron(protocol), convolution_channels(image_shape[1])
        first = backend.direct_coding(image_shape[0], channels[0], spec, protocol.time_steps)
        layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=first)
        for i in range(1, len(channels)):
            layers[f"conv{i + 1}"] = backend.downsampling(channels[i - 1], channels[i], spec)
        self.convolutions = backend.sequence(layers)
        self.linear = backend.linear(channels[-1] * SMALLEST_MAP**2, protocol.latent_size, spec)

    def forward(self, images: Tensor) -> Tensor:
        """Return latent spikes ``(T, N, latent_size)`` for images ``(N, C, H, W)``."""
        return self.linear(self.convolutions(images).flatten(2))


class Readout(StructuralType):
    """The decoder's last layer, a module: spikes ``(T, N, C', H, W)`` to images in [-1, 1]."""

    def __call__(self, spikes: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` for spikes ``(T, N, C', H, W)``."""
        ...

    def prefixes(self, spikes: Tensor) -> Iterator[Tensor]:
        """Yield the images ``(N, C, H, W)`` of the first t = 1..T steps of ``(T, N, C', H, W)``."""
        ...


class SpikingDecoder(nn.Module):
    """Latent spikes ``(T, N, latent_size)`` to images ``(N, C, H, W)`` in [-1, 1]."""

    def __init__(
        self, image_shape: ImageShape, protocol: Protocol, backend: SpikingBackend
    ) -> None:
        super().__init__()
        spec, channels = protocol_neuron(protocol), convolution_channels(image_shape[1])[::-1]
        self.smallest_map = (channels[0], SMALLEST_MAP, SMALLEST_MAP)
        self.linear = backend.linear(protocol.latent_size, channels[0] * SMALLEST_MAP**2, spec)
        outputs = [*channels[1:], channels[-1]]
        self.convolutions = backend.sequence(
            OrderedDict(
                (f"deconv{i + 1}", backend.upsampling(before, after, spec))
                for i, (before, after) in enumerate(zip(channels, outputs, strict=True))
            )
        )
        self.readout: Readout = backend.readout(channels[-1], image_shape[0])

    def forward(self, latents: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` for latent spikes ``(T, N, latent_size)``."""
        return self.readout(self._spikes(latents))

    def prefixes(self, latents: Tensor) -> Iterator[Tensor]:
        """Yield the images ``(N, C, H, W)`` of the first t = 1..T steps of ``(T, N, latent_size)``.

        Correct in evaluation mode only, where later steps do not change earlier ones.
        """
        yield from self.readout.prefixes(self._spikes(latents))

    def _spikes(self, latents: Tensor) -> Tensor:
        return self.convolutions(self.linear(latents).unflatten(2, self.smallest_map))
