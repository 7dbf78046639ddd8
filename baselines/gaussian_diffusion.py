"""Gaussian diffusion of images by a network that predicts the noise, with two samplers.

At step t in 0..999 an image is ``x_t = sqrt(a_t) * x + sqrt(1 - a_t) * noise``. There ``a_t`` is
the product of ``1 - beta_s`` over s <= t, and beta rises linearly from 1e-4 to 0.02. Sources: DDPM
(arXiv:2006.11239) and DDIM (arXiv:2010.02502).
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

STEPS = 1000
FIRST_BETA, LAST_BETA = 1e-4, 0.02
NoisePredictor = Callable[[Tensor, Tensor], Tensor]
"""Noisy images ``(N, C, H, W)`` and their steps ``(N,)`` to the noise in them, ``(N, C, H, W)``."""


def noise_rates() -> Tensor:
    """Return beta of each step, float64 ``(1000,)``."""
    return torch.linspace(FIRST_BETA, LAST_BETA, STEPS, dtype=torch.float64)


def signal_shares() -> Tensor:
    """Return ``a_t``, the share of the image in the variance at each step, float64 ``(1000,)``."""
    return torch.cumprod(1 - noise_rates(), dim=0)


def noisy(images: Tensor, noise: Tensor, share: Tensor | float) -> Tensor:
    """Return images with noise, ``(N, C, H, W)``.

    Args:
        images: images without noise, ``(N, C, H, W)``.
        noise: standard normal noise ``(N, C, H, W)``.
        share: share ``a_t`` of the image; a number, or a tensor that broadcasts with the images.
    """
    return share**0.5 * images + (1 - share) ** 0.5 * noise


def without_noise(images: Tensor, noise: Tensor, share: float) -> Tensor:
    """Return the images ``(N, C, H, W)`` that became ``images`` by that noise.

    Args:
        images: noisy images ``(N, C, H, W)``.
        noise: their noise ``(N, C, H, W)``.
        share: share ``a_t`` of the image.
    """
    return (images - (1 - share) ** 0.5 * noise) / share**0.5


def ddpm(network: NoisePredictor, noise: Tensor, generator: torch.Generator) -> Tensor:
    """Return samples in [-1, 1], ``(N, C, H, W)``, by the 1,000 steps of DDPM.

    A step draws ``x_{t-1}`` from a normal distribution: its mean is the posterior's, given ``x_t``
    and the predicted image, clipped to [-1, 1] (Eq. 7), its variance is ``beta_t``, the larger of
    the two that the paper tries. The last step returns the predicted image.

    Args:
        network: predicts the noise.
        noise: images of the last step, standard normal ``(N, C, H, W)``.
        generator: source of the draws, on the device of the noise.
    """
    betas, shares = noise_rates().tolist(), signal_shares().tolist()
    images = noise
    for step in range(STEPS - 1, 0, -1):
        clean = _predicted(network, images, step, shares[step])
        beta, share, before = betas[step], shares[step], shares[step - 1]
        of_clean = before**0.5 * beta / (1 - share)
        of_noisy = (1 - beta) ** 0.5 * (1 - before) / (1 - share)
        draws = torch.empty_like(images).normal_(generator=generator)
        images = of_clean * clean + of_noisy * images + beta**0.5 * draws
    return _predicted(network, images, 0, shares[0])


def ddim(network: NoisePredictor, noise: Tensor, evaluations: int) -> Tensor:
    """Return samples in [-1, 1], ``(N, C, H, W)``, by DDIM with eta = 0: without draws.

    A step goes to ``sqrt(a) * image + sqrt(1 - a) * noise``, where ``a`` is the share at the next
    step, for the predicted image, clipped to [-1, 1], and the noise that is left in ``x_t`` with
    that image (Eq. 12). The last one returns the predicted image.

    The official code of SDDPM keeps the noise as predicted, which does not fit a clipped image: the
    samples of a network that was trained briefly then become brighter from step to step.

    Args:
        network: predicts the noise.
        noise: images of the last step, standard normal ``(N, C, H, W)``.
        evaluations: number of steps, in 1..1000.
    """
    shares = signal_shares().tolist()
    steps = ddim_steps(evaluations)
    images = noise
    for step, next_step in pairwise(steps):
        share = shares[step]
        clean = _predicted(network, images, step, share)
        left = (images - share**0.5 * clean) / (1 - share) ** 0.5
        images = noisy(clean, left, shares[next_step])
    return _predicted(network, images, steps[-1], shares[steps[-1]])


def ddim_steps(evaluations: int) -> list[int]:
    """Return the steps at which DDIM evaluates the network, from the last one, evenly spaced.

    >>> ddim_steps(4)
    [999, 749, 499, 249]
    """
    return [STEPS - 1 - place * STEPS // evaluations for place in range(evaluations)]


def _predicted(network: NoisePredictor, images: Tensor, step: int, share: float) -> Tensor:
    """Return the predicted images ``(N, C, H, W)``, clipped to [-1, 1]."""
    steps = torch.full(images.shape[:1], step, device=images.device)
    return without_noise(images, network(images, steps), share).clamp(-1, 1)
