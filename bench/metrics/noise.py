"""The kinds of noise behind the robustness curves. Every model gets the same noise.

At level a:

- ``latent_flip`` flips each latent spike with probability a, ``z XOR Bernoulli(a)``. A latent
  without time is reflected about the centre of its prior, ``z -> -z``, with probability a, as a
  flip reflects a spike about 1/2, ``z -> 1 - z``.
- ``latent_shuffle`` permutes the time steps of the latent, each image's in its own random order. It
  has no level.
- ``input_gaussian`` adds Gaussian noise of standard deviation a to the image and clips the sum to
  [-1, 1].
- ``input_salt_and_pepper`` sets each pixel to -1 or 1, in all channels, with probability a.
- ``none`` adds no noise, at level 0.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NoiseStream:
    """Random numbers for the noise on one batch of images.

    The numbers of an image depend on the seed, the kind of noise and the index of the image only.
    They are the same for every model, every batch size and every level, so that a curve shows the
    effect of the level alone: everything corrupted at one level is corrupted at higher ones too.

    Attributes:
        seed: seed of the cell.
        kind: kind of noise, such as ``latent_flip``.
        first: index of the first image of the batch.

    >>> whole, rest = NoiseStream(0, "latent_flip", first=0), NoiseStream(0, "latent_flip", first=1)
    >>> torch.equal(whole.uniform(3, (4,))[1:], rest.uniform(2, (4,)))
    True
    """

    seed: int
    kind: str
    first: int

    def uniform(self, n: int, shape: tuple[int, ...]) -> Tensor:
        """Draw ``(n, *shape)`` for n images, uniform in [0, 1), on the CPU."""
        return torch.stack([torch.rand(shape, generator=self._generator(i)) for i in range(n)])

    def normal(self, n: int, shape: tuple[int, ...]) -> Tensor:
        """Draw ``(n, *shape)`` for n images, standard normal, on the CPU."""
        return torch.stack([torch.randn(shape, generator=self._generator(i)) for i in range(n)])

    def _generator(self, image: int) -> torch.Generator:
        seed = derived_seed(self.seed, self.kind, self.first + image)
        return torch.Generator().manual_seed(seed)


Noise = Callable[[Tensor, float, NoiseStream], Tensor]


def flip(latents: Tensor, level: float, draws: NoiseStream) -> Tensor:
    """Apply ``latent_flip``.

    Args:
        latents: spikes ``(T, N, D)`` in {0, 1}, or latents without time ``(N, D)``.
        level: probability of a flip.
        draws: random numbers for the N images.

    Returns:
        The noisy latents, of the same shape.

    >>> flip(torch.tensor([[[0.0, 1.0]]]), level=1.0, draws=NoiseStream(0, "latent_flip", 0))
    tensor([[[1., 0.]]])
    """
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
    """Apply ``latent_shuffle`` to spikes ``(T, N, D)``.

    >>> spikes = torch.eye(3)[:, None]  # (T, N, D) = (3, 1, 3)
    >>> shuffle(spikes, NoiseStream(0, "latent_shuffle", 0))[:, 0]
    tensor([[0., 1., 0.],
            [0., 0., 1.],
            [1., 0., 0.]])
    """
    time_steps, n, _ = latents.shape
    order = draws.uniform(n, (time_steps,)).argsort(1).T.to(latents.device)
    return latents.gather(0, order[:, :, None].expand_as(latents))


def gaussian(images: Tensor, level: float, draws: NoiseStream) -> Tensor:
    """Apply ``input_gaussian``.

    Args:
        images: images ``(N, C, H, W)`` in [-1, 1].
        level: standard deviation of the noise.
        draws: random numbers for the N images.

    Returns:
        The noisy images ``(N, C, H, W)`` in [-1, 1].
    """
    n, *shape = images.shape
    return (images + level * draws.normal(n, tuple(shape)).to(images)).clamp(-1, 1)


def salt_and_pepper(images: Tensor, level: float, draws: NoiseStream) -> Tensor:
    """Apply ``input_salt_and_pepper``.

    Args:
        images: images ``(N, C, H, W)`` in [-1, 1].
        level: probability that a pixel becomes -1 or 1. Such a pixel has the same value at every
            higher level.
        draws: random numbers for the N images.

    Returns:
        The noisy images ``(N, C, H, W)`` in [-1, 1].

    >>> grey = torch.zeros(1, 1, 1, 4)
    >>> salt_and_pepper(grey, 1.0, NoiseStream(0, "input_salt_and_pepper", 0)).abs()
    tensor([[[[1., 1., 1., 1.]]]])
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
    """Return the seed of a named stream of random numbers, in [0, 2^63).

    Args:
        seed: seed of the cell.
        *stream: name of the stream; different names give independent streams.

    >>> derived_seed(0, "latent_flip", 7) == derived_seed(0, "latent_flip", 7)
    True
    >>> derived_seed(0, "latent_flip", 7) == derived_seed(0, "latent_flip", 8)
    False
    """
    text = "/".join(map(str, (seed, *stream)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
