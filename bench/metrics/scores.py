"""Inception scores: confidence of a classifier on single images and variety over all images."""

import math
from itertools import pairwise

import numpy as np
from torch import Tensor

from bench.metrics.distribution import DistributionMetric, Estimate, mean_with_error
from bench.metrics.feature_pairs import FeaturePair
from bench.store.schema import Headline

# torch-fidelity's seed, which gives the same splits.
SHUFFLE_SEED = 2020
OFFICIAL_SPLITS = 10


class InceptionScore(DistributionMetric):
    """Inception score (Salimans et al., arXiv:1606.03498) as torch-fidelity computes it.

    ``exp(mean_x KL(p(y|x) || p(y)))`` of each split of the shuffled images, averaged over the
    splits; 1 to 1,008 (the number of classes), higher is better. The bias of the last layer is left
    out. The interval comes from the spread over the splits.
    """

    name = "inception_score"
    label = "Inception score"
    headline = Headline(50, "Inception score", "generated")
    higher_is_better = True
    tolerance = 0.05
    extractors = ("inception_torch_fidelity",)
    splits = ()
    selects_epochs = True

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """Return the mean over the protocol's splits, which need at least two images each."""
        logits = _logits(pair)
        n, splits = len(logits), self.protocol.inception_score_splits
        if n < 2 * splits:
            return f"{n} generated images: inception_score_splits={splits} needs {2 * splits}"
        order = np.random.RandomState(SHUFFLE_SEED).permutation(n)
        return mean_with_error(split_scores(logits[order], splits), n)


class EfficientNetScore(InceptionScore):
    """Inception score's formula on EfficientNet-Lite0's logits, not comparable with that score."""

    name = "efficientnet_score"
    label = "Inception score, EfficientNet"
    extractors = ("efficientnet_lite0",)
    selects_epochs = False


class OfficialInceptionScore(DistributionMetric):
    """Inception score as the official code of FSVAE and ESVAE computes it.

    With torchvision's network, on the first ten complete splits of
    ``official_inception_split_size`` images, in order; 1 to 1,000, higher is better. Not comparable
    with ``inception_score``, because the network, the classes and the preprocessing differ.
    """

    name = "inception_score_official"
    label = "Inception score, papers' code"
    higher_is_better = True
    tolerance = 0.05
    splits = ()
    extractors = ("inception_torchvision",)
    selects_epochs = True

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """Return the mean over the complete splits."""
        logits, size = _logits(pair), self.protocol.official_inception_split_size
        splits = min(len(logits) // size, OFFICIAL_SPLITS)
        if not splits:
            return f"{len(logits)} generated images: a split has {size}"
        n = splits * size
        return mean_with_error(split_scores(logits[:n], splits), n)


def split_scores(logits: Tensor, splits: int) -> np.ndarray:
    """Return ``exp(mean KL(p(y|x) || p(y)))`` of each split of the images, in order.

    Args:
        logits: logits ``(N, K)`` of K classes.
        splits: number of splits S, at most N; their sizes differ by 1 at most.

    Returns:
        Float64 ``(S,)``, from 1 (all images have the same class probabilities) to K (each image
        has one certain class, and all classes are equally frequent).

    >>> split_scores(Tensor([[100.0, 0.0], [0.0, 100.0]]), splits=1).round(6)
    array([2.])
    """
    log_p = logits.double().log_softmax(1)
    bounds = [i * len(logits) // splits for i in range(splits + 1)]
    scores = []
    for start, end in pairwise(bounds):
        part = log_p[start:end]
        # In logarithms, so that a probability that underflows gives no infinity.
        marginal = part.logsumexp(0) - math.log(len(part))
        scores.append((part.exp() * (part - marginal)).sum(1).mean().exp().item())
    return np.array(scores)


def _logits(pair: FeaturePair) -> Tensor:
    assert pair.generated.logits is not None
    return pair.generated.logits
