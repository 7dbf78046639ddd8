"""The noise of the robustness curves, the same for every model.

``latent_flip``: each latent spike is flipped with probability a, ``z XOR Bernoulli(a)``; a latent
without time is reflected about its prior's centre, ``z -> -z``, with probability a, which is what
a flip does to a spike (``z -> 1 - z``, about 1/2).
``latent_shuffle``: the latent's time steps in random order, one order for each image.
``input_gaussian``: Gaussian noise of standard deviation a is added to the image in [-1, 1], and
the sum is clipped to that range.
``input_salt_and_pepper``: each pixel becomes -1 or 1, in all channels, with probability a.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Noise = Callable[[Tensor, float, torch.Generator], Tensor]


def flip(latents: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """``latent_flip`` of spikes ``(T, N, D)`` or latents ``(N, D)``."""
    flipped = _chance(latents.shape, generator).to(latents.device) < level
    opposite = 1 - latents if latents.ndim == 3 else -latents
    return torch.where(flipped, opposite, latents)


def shuffle(latents: Tensor, generator: torch.Generator) -> Tensor:
    """``latent_shuffle`` of spikes ``(T, N, D)``."""
    order = _chance(latents.shape[:2], generator).argsort(0).to(latents.device)
    return latents.gather(0, order[:, :, None].expand_as(latents))


def gaussian(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """``input_gaussian`` of images ``(N, C, H, W)``."""
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return (images + level * noise).clamp(-1, 1)


def salt_and_pepper(images: Tensor, level: float, generator: torch.Generator) -> Tensor:
    """``input_salt_and_pepper`` of images ``(N, C, H, W)``."""
    chance = _chance((len(images), 1, *images.shape[2:]), generator).to(images.device)
    images = torch.where(chance < level / 2, -1.0, images)
    return torch.where((chance >= level / 2) & (chance < level), 1.0, images)


LATENT_NOISE: dict[str, Noise] = {"latent_flip": flip}
INPUT_NOISE: dict[str, Noise] = {
    "input_gaussian": gaussian,
    "input_salt_and_pepper": salt_and_pepper,
}
LATENT_SHUFFLE = "latent_shuffle"


def _chance(size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(size, generator=generator)
