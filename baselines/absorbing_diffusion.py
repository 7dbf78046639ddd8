"""Absorbing-state diffusion of tokens, and its spiking denoiser SDID (arXiv:2308.10187).

The diffusion has as many steps as the map has places, P = H * W. At step t in 1..P each token
of ``(N, H, W)`` is replaced by the mask with probability t / P. Source of the diffusion:
arXiv:2107.03006 (D3PM) and arXiv:2111.12701.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.convolution_layers import convolution3, repeated_input_layer, spiking_layer
from bench.backend import NeuronSpec, SpikingBackend

BoundWeights = Literal["reweighted", "elbo"]
INPUTS = 2
"""Planes that the denoiser takes: the tokens and the step, as numbers."""
GROWTH = 1, 2, 4, 8, 4
"""Channels of the denoiser's spiking layers, relative to the first."""


class Denoiser(nn.Module):
    """SDID: masked tokens ``(N, H, W)`` and a step to logits of the codes ``(N, codes, H, W)``.

    Five 3x3 convolutions with batch norm and neurons. The spikes of the first and of the last are
    concatenated and convolved; the logits are their mean over time. The input is the same at each
    time step and the last convolution is linear, so the first runs once, and the last runs once on
    the mean of its inputs.

    Args:
        codes: number of codes; the mask is the token of this number.
        width: output channels of the first layer; 64 in the official code.
        spec: neuron of all layers.
        backend: builds the neurons.
        time_steps: number of time steps T of the neurons.
    """

    def __init__(
        self, codes: int, width: int, spec: NeuronSpec, backend: SpikingBackend, time_steps: int
    ) -> None:
        super().__init__()
        channels = [factor * width for factor in GROWTH]
        self.conv1 = repeated_input_layer(
            convolution3(INPUTS, channels[0]), spec, backend, time_steps
        )
        self.conv2 = spiking_layer(convolution3(channels[0], channels[1]), spec, backend)
        self.conv3 = spiking_layer(convolution3(channels[1], channels[2]), spec, backend)
        self.conv4 = spiking_layer(convolution3(channels[2], channels[3]), spec, backend)
        self.conv5 = spiking_layer(convolution3(channels[3], channels[4]), spec, backend)
        self.conv6 = convolution3(channels[0] + channels[4], codes)

    def forward(self, tokens: Tensor, step: Tensor) -> Tensor:
        """Return logits ``(N, codes, H, W)``.

        Args:
            tokens: tokens, masks among them, int64 ``(N, H, W)``.
            step: diffusion step of each image, int64 ``(N,)``.
        """
        planes = torch.stack([tokens, step[:, None, None].expand_as(tokens)], dim=1)
        first = self.conv1(planes.to(self.conv6.weight.dtype))
        last = self.conv5(self.conv4(self.conv3(self.conv2(first))))
        logits: Tensor = self.conv6(torch.cat([last.mean(0), first.mean(0)], dim=1))
        return logits


def masked(
    tokens: Tensor, step: Tensor, mask: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Replace each token by the mask with probability ``step / places``.

    Args:
        tokens: tokens, int64 ``(N, H, W)``.
        step: diffusion step of each image, int64 ``(N,)`` in 1..H * W.
        mask: token of the mask.
        generator: source of the draws; None for PyTorch's own.

    Returns:
        The masked tokens, and True where a token was replaced, both ``(N, H, W)``.
    """
    places = tokens[0].numel()
    draws = torch.rand(tokens.shape, generator=generator, device=tokens.device)
    hidden = draws * places < step[:, None, None]
    return tokens.masked_fill(hidden, mask), hidden


def bound_weight(step: Tensor, places: int, weights: BoundWeights) -> Tensor:
    """Return the factor of the cross entropy of each image ``(N,)``, for steps ``(N,)``.

    Args:
        step: diffusion step of each image, int64 ``(N,)`` in 1..places.
        places: number of places, which is the number of steps.
        weights: ``elbo``, ``places / t``, with which the mean over t is a bound of the negative
            log likelihood; or ``reweighted``, ``1 - t / places``, as the official code trains.

    >>> bound_weight(torch.tensor([1, 2, 4]), 4, "elbo").tolist()
    [4.0, 2.0, 1.0]
    >>> bound_weight(torch.tensor([1, 2, 4]), 4, "reweighted").tolist()
    [0.75, 0.5, 0.0]
    """
    return places / step if weights == "elbo" else 1 - step / places


def diffusion_loss(logits: Tensor, tokens: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted cross entropy over masked places, in bits per place, a scalar.

    Args:
        logits: logits of the codes, ``(N, codes, H, W)``.
        tokens: tokens without mask, int64 ``(N, H, W)``.
        hidden: True at masked places, ``(N, H, W)``.
        weight: factor of each image, ``(N,)``.
    """
    entropy = F.cross_entropy(logits, tokens, reduction="none")
    per_image = (entropy * hidden).flatten(1).sum(1) * weight
    return per_image.mean() / (math.log(2) * tokens[0].numel())


def sample_tokens(
    denoiser: Callable[[Tensor, Tensor], Tensor],
    size: tuple[int, int, int],
    mask: int,
    temperature: float,
    generator: torch.Generator,
) -> Tensor:
    """Return tokens, int64 ``(N, H, W)``, sampled in H * W steps from all masked.

    At step t = H * W..1 each place that is still masked is uncovered with probability 1 / t, and
    drawn from ``softmax(logits / temperature)``; so all are uncovered in the end.

    Args:
        denoiser: masked tokens ``(N, H, W)`` and steps ``(N,)`` to logits ``(N, codes, H, W)``.
        size: ``(N, H, W)``.
        mask: token of the mask.
        temperature: temperature of the draws, above 0.
        generator: source of the draws, on the device of the denoiser.
    """
    device = generator.device
    tokens = torch.full(size, mask, device=device)
    for t in range(tokens[0].numel(), 0, -1):
        chosen = torch.rand(size, generator=generator, device=device) * t < 1
        logits = denoiser(tokens, torch.full(size[:1], t, device=device))
        # The largest of the logits after Gumbel noise is a draw from their softmax.
        noise = torch.empty_like(logits).exponential_(generator=generator).log()
        drawn = (logits / temperature - noise).argmax(1)
        tokens = torch.where(chosen & (tokens == mask), drawn, tokens)
    return tokens
