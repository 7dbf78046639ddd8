"""The noise of the robustness curves, the same for every model.

``latent_flip``: each latent spike is flipped with probability a, ``z XOR Bernoulli(a)``; a latent
without time is reflected about its prior's centre, ``z -> -z``, with probability a, which is what
a flip does to a spike (``z -> 1 - z``, about 1/2).
``latent_shuffle``: the latent's time steps in random order, one order for each image.
``input_gaussian``: Gaussian noise of standard deviation a is added to the image in [-1, 1], and
the sum is clipped to that range.
``input_salt_and_pepper``: each pixel becomes -1 or 1, in all channels, with probability a.
``none``: no noise, at level 0.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NoiseStream:
    """The random numbers behind the noise on a batch of images.

    Those of an image depend on the seed, the kind and the image's index alone: every model gets
    the same, in whatever batches, and so does every level. A curve thus varies by its level only,
    and what a level corrupts, a higher one corrupts too.

    Attributes:
        seed: of the cell.
        kind: of noise.
        first: index of the batch's first image.
    """

    seed: int
    kind: str
    first: int

    def uniform(self, n: int, shape: tuple[int, ...]) -> Tensor:
        """``(n, *shape)`` for n images, uniform in [0, 1), on the CPU."""
        return torch.stack([torch.rand(shape, generator=self._of(i)) for i in range(n)])

    def normal(self, n: int, shape: tuple[int, ...]) -> Tensor:
        """``(n, *shape)`` for n images, standard normal, on the CPU."""
        return torch.stack([torch.randn(shape, generator=self._of(i)) for i in range(n)])

    def _of(self, image: int) -> torch.Generator:
        seed = derived_seed(self.seed, self.kind, self.first + image)
        return torch.Generator().manual_seed(seed)


Noise = Callable[[Tensor, float, NoiseStream], Tensor]


def flip(latents: Tensor, level: float, draws: NoiseStream) -> Tensor:
    """``latent_flip`` of spikes ``(T, N, D)`` or latents ``(N, D)``."""
    if latents.ndim == 3:
        time_steps, n, size = latents.shape
        chance = draws.uniform(n, (time_steps, size)).transpose(0, 1)
        opposite = 1 - latents
    else:
        n, size = latents.shape
        chance = draws.uniform(n, (size,))
        opposite = -latents
    return torch.where((chance < level).to(latents.device), opposite, latents)


def shuffle(latents: Tensor, draws: NoiseStream) -> Tensor:
    """``latent_shuffle`` of spikes ``(T, N, D)``."""
    time_steps, n, _ = latents.shape
    order = draws.uniform(n, (time_steps,)).argsort(1).T.to(latents.device)
    return latents.gather(0, order[:, :, None].expand_as(latents))


def gaussian(images: Tensor, level: float, draws: NoiseStream) -> Tensor:
    """``input_gaussian`` of images ``(N, C, H, W)``."""
    n, *shape = images.shape
    return (images + level * draws.normal(n, tuple(shape)).to(images)).clamp(-1, 1)


def salt_and_pepper(images: Tensor, level: float, draws: NoiseStream) -> Tensor:
    """``input_salt_and_pepper`` of images ``(N, C, H, W)``.

    A pixel that one level turns to one extreme keeps it at every higher level.
    """
    n, _, *size = images.shape
    chance, side = draws.uniform(n, (2, 1, *size)).to(images.device).unbind(1)
    extreme = torch.where(side < 0.5, -1.0, 1.0).to(images.dtype)
    return torch.where(chance < level, extreme, images)


LATENT_NOISE: dict[str, Noise] = {"latent_flip": flip}
INPUT_NOISE: dict[str, Noise] = {
    "input_gaussian": gaussian,
    "input_salt_and_pepper": salt_and_pepper,
}
LATENT_SHUFFLE = "latent_shuffle"
NO_NOISE = "none"


def derived_seed(seed: int, *stream: object) -> int:
    """The seed of one stream of random numbers, apart from all others, in [0, 2^63)."""
    text = "/".join(map(str, (seed, *stream)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
