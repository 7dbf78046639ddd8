"""Distances between posterior and prior that the papers train with."""

import math
from typing import Literal

import torch
from torch import Tensor


def postsynaptic_potential(spikes: Tensor) -> Tensor:
    """Apply the PSP filter ``p_t = p_{t-1} + (s_t - p_{t-1}) / 2``, ``p_0 = 0``, over time.

    The input and the result are ``(T, ...)``. Source: arXiv:2110.00375, with time constant 2.

    >>> postsynaptic_potential(torch.tensor([1.0, 0.0, 1.0])).tolist()
    [0.5, 0.25, 0.625]
    """
    potential = torch.zeros_like(spikes[0])
    potentials = []
    for spike in spikes:
        potential = potential + (spike - potential) / 2
        potentials.append(potential)
    return torch.stack(potentials)


def psp_mmd(posterior: Tensor, prior: Tensor, over_time: Literal["mean", "sum"]) -> Tensor:
    """Return FSVAE's MMD, a scalar: the squared distance between the PSPs of two spike rates.

    It is the mean over (N, C), and the mean or sum over t, of ``(PSP(q)_t - PSP(p)_t)^2``. The
    paper sums over t (arXiv:2110.00375), its official code takes the mean.

    Args:
        posterior: means ``(T, N, C)`` of Bernoulli processes q, in [0, 1].
        prior: means ``(T, N, C)`` of Bernoulli processes p, in [0, 1].
        over_time: ``mean`` or ``sum`` over the time steps.

    >>> psp_mmd(torch.ones(2, 1, 1), torch.zeros(2, 1, 1), "sum").item()  # 1/2^2 + (3/4)^2
    0.8125
    """
    squared = (postsynaptic_potential(posterior) - postsynaptic_potential(prior)).square()
    return squared.mean() if over_time == "mean" else squared.mean(dim=(1, 2)).sum()


def bernoulli_kl(posterior: Tensor, prior: Tensor, epsilon: float = 1e-2) -> Tensor:
    """Return FSVAE's ablation, a scalar: KL(q || p) of Bernoulli processes.

    It is summed over time and channels and averaged over the batch.

    Args:
        posterior: means ``(T, N, C)`` of q, in [0, 1].
        prior: means ``(T, N, C)`` of p, in [0, 1].
        epsilon: number added to each probability inside the logarithms, as in the official code.

    >>> q = torch.full((2, 3, 4), 0.3)
    >>> bernoulli_kl(q, q).item()
    0.0
    """
    fire = posterior * ((posterior + epsilon) / (prior + epsilon)).log()
    rest = (1 - posterior) * ((1 - posterior + epsilon) / (1 - prior + epsilon)).log()
    return (fire + rest).sum(dim=(0, 2)).mean()


def rbf_mmd(posterior: Tensor, prior: Tensor) -> Tensor:
    """Return ESVAE's MMD between two samples of firing rates ``(N, C)``, a scalar.

    Five kernels ``exp(-d^2 / (b * 2^i))``, i = 0..4, are summed; ``b`` is the mean squared distance
    between distinct points of the pooled batch divided by 4, without gradient. The estimate is
    biased: it includes the diagonals. Source: arXiv:2310.14839 and its official code.

    >>> rates = torch.rand(8, 3)
    >>> bool(rbf_mmd(rates, rates).abs() < 1e-6)
    True
    """
    pooled = torch.cat([posterior, prior])
    squared = (pooled[:, None] - pooled[None, :]).square().sum(-1)
    pairs = len(pooled) * (len(pooled) - 1)
    base = (squared.detach().sum() / pairs / 4).clamp_min(torch.finfo(squared.dtype).tiny)
    kernels = sum(torch.exp(-squared / (base * 2**i)) for i in range(5))
    assert isinstance(kernels, Tensor)
    n = len(posterior)
    cross = kernels[:n, n:].mean()
    return kernels[:n, :n].mean() + kernels[n:, n:].mean() - 2 * cross


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, variance) || N(0, I)) of ``(N, C)``, summed over C, averaged over N.

    Source: Kingma and Welling, arXiv:1312.6114, appendix B.

    >>> gaussian_kl(torch.ones(1, 2), torch.zeros(1, 2)).item()
    1.0
    """
    terms = 1 + log_variance - mean.square() - log_variance.exp()
    return -0.5 * terms.sum(dim=1).mean()


def elbo_weight(image_shape: tuple[int, int, int]) -> float:
    """Return the weight w at which ``MSE + w * KL`` is an ELBO up to a factor, for ``(C, H, W)``.

    For a Gaussian likelihood of variance 1/2 the ELBO is ``sum (x - x')^2 + KL``; divided by the
    number of values of an image it is ``MSE + KL / (C * H * W)``.

    >>> elbo_weight((1, 32, 32)) == 1 / 1024
    True
    """
    return 1 / math.prod(image_shape)
