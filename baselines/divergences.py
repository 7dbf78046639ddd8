"""Distances between posterior and prior that the papers train with."""

import math
from typing import Literal

import torch
from torch import Tensor

from baselines.layers import postsynaptic_potential


def psp_mmd(posterior: Tensor, prior: Tensor, over_time: Literal["mean", "sum"]) -> Tensor:
    """FSVAE's MMD: squared distance of the PSPs of two firing probabilities, a scalar.

    ``mean over (N, C) of mean or sum over t of (PSP(q)_t - PSP(p)_t)^2`` for ``(T, N, C)`` means
    of Bernoulli processes in [0, 1]. The paper sums over t (arXiv:2110.00375), its
    official code takes the mean.
    """
    squared = (postsynaptic_potential(posterior) - postsynaptic_potential(prior)).square()
    return squared.mean() if over_time == "mean" else squared.mean(dim=(1, 2)).sum()


def bernoulli_kl(posterior: Tensor, prior: Tensor, epsilon: float = 1e-2) -> Tensor:
    """FSVAE's ablation: KL(q || p) of Bernoulli processes with means ``(T, N, C)``, a scalar.

    Summed over time and channels, averaged over the batch; ``epsilon`` is added to each
    probability within the logarithms, as in the official code.
    """
    fire = posterior * ((posterior + epsilon) / (prior + epsilon)).log()
    rest = (1 - posterior) * ((1 - posterior + epsilon) / (1 - prior + epsilon)).log()
    return (fire + rest).sum(dim=(0, 2)).mean()


def rbf_mmd(posterior: Tensor, prior: Tensor) -> Tensor:
    """ESVAE's MMD between two samples of firing rates ``(N, C)``, a scalar.

    Five kernels ``exp(-d^2 / (b * 2^i))``, i = 0..4, summed, with ``b`` the mean squared distance
    between distinct points of the pooled batch, divided by 4 and without gradient; biased
    estimate (diagonals included). Source: arXiv:2310.14839, and its official code.
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
    """KL(N(mean, variance) || N(0, I)) of ``(N, C)``, summed over C, averaged over N, a scalar.

    Source: Kingma and Welling, arXiv:1312.6114, appendix B.
    """
    terms = 1 + log_variance - mean.square() - log_variance.exp()
    return -0.5 * terms.sum(dim=1).mean()


def elbo_weight(image_shape: tuple[int, int, int]) -> float:
    """The KL's weight at which ``MSE + w * KL`` is an ELBO, up to a factor.

    For a Gaussian likelihood of variance 1/2 the ELBO is ``sum (x - x')^2 + KL``; divided by the
    number of values of an image it is ``MSE + KL / (C * H * W)``.
    """
    return 1 / math.prod(image_shape)
