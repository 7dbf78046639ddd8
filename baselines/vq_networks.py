"""The networks of VQ-SVAE (arXiv:2308.10187 and its official code).

Pixels are ``(N, C, H, W)`` in [-1/2, 1/2] here. Tokens are indices of the codebook, int64
``(N, H / 4, W / 4)``.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.convolution_layers import repeated_input_layer, spiking_layer
from bench.backend import (
    NeuronSpec,
    SpikingBackend,
    downsampling,
    readout_weights,
    upsampling,
)

CHANNELS = 32, 64
CODE_SIZE = 16
CODES = 128
REDUCTION = 4
"""Image size divided by the size of the token map."""
COMMITMENT = 0.25
SYNAPTIC_DECAY = 0.5


class VQEncoder(nn.Module):
    """Pixels ``(N, C, H, W)`` to spikes ``(T, N, 16, H / 4, W / 4)``.

    Args:
        channels: number of image channels.
        spec: neuron of all layers.
        backend: builds the neurons.
        time_steps: number of time steps T.
    """

    def __init__(
        self, channels: int, spec: NeuronSpec, backend: SpikingBackend, time_steps: int
    ) -> None:
        super().__init__()
        first, second = CHANNELS
        self.conv1 = repeated_input_layer(downsampling(channels, first), spec, backend, time_steps)
        self.conv2 = spiking_layer(downsampling(first, second), spec, backend)
        self.conv3 = spiking_layer(nn.Conv2d(second, CODE_SIZE, 1), spec, backend)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return spikes ``(T, N, 16, H / 4, W / 4)`` for pixels ``(N, C, H, W)``."""
        spikes: Tensor = self.conv3(self.conv2(self.conv1(pixels)))
        return spikes


class Quantiser(nn.Module):
    """The codebook, and the weight ``alpha`` of the firing rate in the feature that it is read by.

    The feature of a place is ``(1 - alpha) * sum_t 0.8^(T - t) s_t + alpha * mean_t s_t``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.5))
        self.codebook = nn.Parameter(torch.randn(CODES, CODE_SIZE))

    def feature(self, spikes: Tensor) -> Tensor:
        """Return features ``(N, 16, H, W)`` of the encoder's spikes ``(T, N, 16, H, W)``."""
        last, mean = leaky_sum(spikes), spikes.mean(0)
        return torch.lerp(last, mean, self.alpha.to(last))

    def tokens(self, feature: Tensor) -> Tensor:
        """Return the nearest codes of features ``(N, 16, H, W)``: tokens, int64 ``(N, H, W)``.

        Nearest is by the Euclidean distance; of equally near codes the first.
        """
        flat = feature.movedim(1, -1)
        distances = self.codebook.square().sum(1) - 2 * F.linear(flat, self.codebook)
        return distances.argmin(-1)

    def codes(self, tokens: Tensor) -> Tensor:
        """Return codes ``(N, 16, H, W)`` of tokens ``(N, H, W)``."""
        return F.embedding(tokens, self.codebook).movedim(-1, 1)


class SpikeGenerator(nn.Module):
    """The adaptive spike generator: codes ``(N, 16, H, W)`` to spikes ``(T, N, 16, H, W)``.

    Args:
        spec: neuron of the layer.
        backend: builds the neurons.
        time_steps: number of time steps T, at each of which the codes are the input.
    """

    def __init__(self, spec: NeuronSpec, backend: SpikingBackend, time_steps: int) -> None:
        super().__init__()
        synapse = nn.Conv2d(CODE_SIZE, CODE_SIZE, 1)
        self.conv = repeated_input_layer(synapse, spec, backend, time_steps)

    def forward(self, codes: Tensor) -> Tensor:
        """Return spikes ``(T, N, 16, H, W)`` for codes ``(N, 16, H, W)``."""
        spikes: Tensor = self.conv(codes)
        return spikes


class VQDecoder(nn.Module):
    """Spikes ``(T, N, 16, H / 4, W / 4)`` to the output ``(N, C, H, W)`` in [-1, 1].

    Args:
        channels: number of image channels.
        spec: neuron of all layers.
        backend: builds the layers.
    """

    def __init__(self, channels: int, spec: NeuronSpec, backend: SpikingBackend) -> None:
        super().__init__()
        last, first = CHANNELS
        self.deconv1 = spiking_layer(upsampling(CODE_SIZE, first), spec, backend)
        self.deconv2 = spiking_layer(upsampling(first, last), spec, backend)
        self.readout = backend.readout(last, channels)

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the output ``(N, C, H, W)`` for spikes ``(T, N, 16, H / 4, W / 4)``."""
        output: Tensor = self.readout(self.deconv2(self.deconv1(spikes)))
        return output

    def prefixes(self, spikes: Tensor) -> Iterator[Tensor]:
        """Yield the outputs of the first t = 1..T steps of ``(T, N, 16, H / 4, W / 4)``.

        Correct in evaluation mode only, where later steps do not change earlier ones.
        """
        yield from self.readout.prefixes(self.deconv2(self.deconv1(spikes)))


def leaky_sum(spikes: Tensor) -> Tensor:
    """Return ``sum_t 0.8^(T - t) s_t``, ``(N, ...)``, for spikes ``(T, N, ...)``.

    >>> leaky_sum(torch.tensor([[1.0], [0.0], [1.0]]))
    tensor([1.6400])
    """
    weights = readout_weights(len(spikes)).tolist()
    total = torch.zeros_like(spikes[0])
    for weight, spike in zip(weights, spikes, strict=True):
        total = total.add(spike, alpha=weight)
    return total


def synaptic_potentials(spikes: Tensor) -> Tensor:
    """Return post-synaptic potentials ``p_t = p_{t-1} + (s_t - p_{t-1}) / 2``, ``(T, N, ...)``.

    Args:
        spikes: spikes ``(T, N, ...)``; the potential before them is 0.

    >>> synaptic_potentials(torch.tensor([[1.0], [0.0], [1.0]])).flatten()
    tensor([0.5000, 0.2500, 0.6250])
    """
    potential, potentials = torch.zeros_like(spikes[0]), []
    for spike in spikes:
        potential = torch.lerp(potential, spike, SYNAPTIC_DECAY)
        potentials.append(potential)
    return torch.stack(potentials)


def quantisation_loss(feature: Tensor, codes: Tensor) -> Tensor:
    """Return ``mean |sg(e) - q|^2 + 0.25 * mean |e - sg(q)|^2``, where sg stops the gradient.

    Args:
        feature: what is approximated, e, ``(...)``.
        codes: the approximation q, ``(...)``.
    """
    codebook = F.mse_loss(codes, feature.detach())
    return codebook + COMMITMENT * F.mse_loss(feature, codes.detach())
