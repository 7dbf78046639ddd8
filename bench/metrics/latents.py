"""Metrics of latents: information about the class, and distances of posterior and prior."""

import warnings
from collections.abc import Iterable

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from bench.datasets.preprocessing import draw
from bench.metrics.metric import LatentBatch, Metric, ModelFacts, Observation
from bench.metrics.uncertainty import (
    GroupedMoments,
    interval,
    merged,
    two_sample_error,
    wilson_interval,
)
from bench.protocol import Protocol
from bench.store.schema import NOT_NEGATIVE, SHARE

PROBE_ITERATIONS = 1000
MMD_LATENTS = 2000
MMD_LEAST = 3
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


class LinearProbeAccuracy(Metric):
    """Accuracy of a linear classifier on the latent's firing rates, over test images.

    In [0, 1], higher is better. Multinomial logistic regression (L2 penalty, C = 1), fitted to
    ``latent_images`` drawn training images; rates are standardised by the mean and standard
    deviation of these. The interval is Wilson's. For a model without time the latents themselves
    replace the rates.
    """

    name = "linear_probe_accuracy"
    label = "accuracy of a linear probe on latents"
    bounds = SHARE
    version = "2"
    unit = "1"
    higher_is_better = True
    tolerance = 0.02
    needs = frozenset({"latents"})

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._rates: dict[str, list[Tensor]] = {"train": [], "test": []}
        self._labels: dict[str, list[Tensor]] = {"train": [], "test": []}

    def update_latents(self, batch: LatentBatch) -> None:
        """Keep the firing rates of images whose class is known."""
        if batch.split != "prior" and batch.labels is not None:
            self._rates[batch.split].append(batch.rates.double().cpu())
            self._labels[batch.split].append(batch.labels.cpu())

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation, over the test images."""
        reason = self._inapplicable()
        if reason:
            yield Observation(None, split="test", status="not_applicable", reason=reason)
            return
        hits = self._probe()
        low, high = wilson_interval(int(hits.sum()), len(hits))
        yield Observation(hits.mean().item(), len(hits), "test", ci_low=low, ci_high=high)

    def _inapplicable(self) -> str | None:
        if not (self._labels["train"] and self._labels["test"]):
            return "the dataset has no labels"
        classes = len(torch.cat(self._labels["train"]).unique())
        return None if classes > 1 else "all training images are of one class"

    def _probe(self) -> np.ndarray:
        """Return whether the classifier predicts each test image's class, boolean ``(N,)``.

        Raises:
            ConvergenceWarning: the fit does not converge.
        """
        rates = {split: torch.cat(batches).numpy() for split, batches in self._rates.items()}
        labels = {split: torch.cat(batches).numpy() for split, batches in self._labels.items()}
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=PROBE_ITERATIONS))
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            probe.fit(rates["train"], labels["train"])
        return probe.predict(rates["test"]) == labels["test"]


class PosteriorPriorMMD(Metric):
    """Squared maximum mean discrepancy between firing rates of the posterior and of the prior.

    Lower is better; about 0 for equal distributions, so negative values occur. The posterior
    latents are encoded test images. :func:`squared_mmd` gives the formula; its bandwidths follow
    the distances between latents, so that latents of any scale are comparable. At most 2,000
    latents of each are used, drawn with a fixed seed, because the cost grows with the number of
    pairs. For a model without time the latents themselves replace the rates.
    """

    name = "posterior_prior_mmd"
    label = "MMD of posterior and prior"
    version = "2"
    unit = "1"
    higher_is_better = False
    tolerance = 0.1
    needs = frozenset({"latents"})

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._rates: dict[str, list[Tensor]] = {"test": [], "prior": []}

    def update_latents(self, batch: LatentBatch) -> None:
        """Keep the firing rates."""
        if batch.split != "train":
            self._rates[batch.split].append(batch.rates.cpu())

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation; its n is the number of latents in each of the two sets."""
        n, drawn = (sum(map(len, self._rates[split])) for split in ("test", "prior"))
        if min(n, drawn) < MMD_LEAST:
            yield _no_comparison(n, drawn, MMD_LEAST)
            return
        posterior, prior = (self._drawn(split) for split in ("test", "prior"))
        value, error = squared_mmd(posterior, prior)
        low, high = interval(value, error)
        yield Observation(value, n=len(posterior), split="test", ci_low=low, ci_high=high)

    def _drawn(self, split: str) -> Tensor:
        """Return the rates ``(N, D)`` of at most 2,000 latents, float64."""
        rates = torch.cat(self._rates[split])
        return rates[torch.from_numpy(draw(len(rates), MMD_LATENTS))].double()


class PosteriorPriorFrechetDistance(Metric):
    """Fréchet distance between firing rates of the posterior (of test images) and of the prior.

    FID's formula, on at most ``latent_images`` latents of each; 0 or more, lower is better. For a
    model without time the latents themselves replace the rates. The interval comes from a
    delete-a-group jackknife over ten groups of both sets.
    """

    name = "posterior_prior_frechet_distance"
    label = "Fréchet distance of posterior and prior"
    bounds = NOT_NEGATIVE
    version = "2"
    unit = "1"
    higher_is_better = False
    tolerance = 0.05
    needs = frozenset({"latents"})

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._moments = {"test": GroupedMoments(), "prior": GroupedMoments()}

    def update_latents(self, batch: LatentBatch) -> None:
        """Add the firing rates."""
        if batch.split != "train":
            self._moments[batch.split].update(batch.rates)

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation; its n is the number of latents in each of the two sets."""
        posterior, prior = self._moments["test"], self._moments["prior"]
        if min(posterior.n, prior.n) < 2:
            yield _no_comparison(posterior.n, prior.n, 2)
            return
        value = posterior.distance(*merged(prior.groups))
        error = two_sample_error(posterior, prior)
        low, high = (None, None) if error is None else interval(value, error)
        yield Observation(value, n=posterior.n, split="test", ci_low=low, ci_high=high)


def _no_comparison(posterior: int, prior: int, least: int) -> Observation:
    reason = (
        f"{posterior} latents of test images and {prior} of the prior: {least} of each are needed"
    )
    if not prior:
        reason = "the model cannot draw latents from its prior"
    return Observation(None, n=posterior, split="test", status="not_applicable", reason=reason)


def squared_mmd(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the unbiased squared maximum mean discrepancy of two samples of equal size.

    The U-statistic of Gretton et al. (JMLR 13, 2012, equation 4): the mean over i != j of
    ``k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i)``. The kernel is the mean of the
    Gaussians ``exp(-d^2 / (2 (b m)^2))`` for b in 1/4, 1/2, 1, 2, 4, where m is the median of the
    non-zero distances d between all vectors of both samples.

    Args:
        x: first sample ``(N, D)``, float64, N at least 3.
        y: second sample ``(N, D)``, float64.

    Returns:
        The value, which can be negative, and its standard error by the jackknife over the pairs
        (x_i, y_i).

    Raises:
        ValueError: the sizes differ or are below 3, or a value is not finite.

    >>> x = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    >>> value, error = squared_mmd(x, x + 10)
    >>> round(value, 3), round(error, 3)
    (0.922, 0.093)
    """
    n = len(x)
    if n != len(y) or n < MMD_LEAST:
        raise ValueError(
            f"MMD needs two samples of equal size, at least {MMD_LEAST}, got {n} and {len(y)}"
        )
    both = torch.cat([x, y])
    if not both.isfinite().all():
        raise ValueError("the latents contain values that are not finite")
    distances = torch.cdist(both, both, compute_mode="donot_use_mm_for_euclid_dist")
    kernel = _mean_gaussian(distances)
    cross = kernel[:n, n:]
    terms = (kernel[:n, :n] + kernel[n:, n:] - cross - cross.T).fill_diagonal_(0).sum(1)
    value = terms.sum() / (n * (n - 1))
    left_out = (terms.sum() - 2 * terms) / ((n - 1) * (n - 2))
    variance = (n - 1) / n * (left_out - left_out.mean()).square().sum()
    return value.item(), variance.sqrt().item()


def _mean_gaussian(distances: Tensor) -> Tensor:
    """Return the kernel at distances of any shape; 1 everywhere if all distances are 0."""
    nonzero = distances[distances > 0]
    if not len(nonzero):
        return torch.ones_like(distances)
    scaled = (distances / np.median(nonzero.numpy())).square_()
    kernel = torch.zeros_like(scaled)
    for width in BANDWIDTHS:
        kernel += (scaled / (-2 * width**2)).exp_()
    return kernel / len(BANDWIDTHS)
