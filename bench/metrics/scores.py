"""Inception scores: how sure a classifier is of single images, how varied it finds them all."""

import math
from itertools import pairwise

import numpy as np
from torch import Tensor

from bench.metrics.distribution import DistributionMetric, Estimate, mean_with_error
from bench.metrics.feature_pairs import FeaturePair
from bench.store.schema import Headline

# torch-fidelity's seed, so that the splits are the same.
SHUFFLE_SEED = 2020
OFFICIAL_SPLITS = 10
OFFICIAL_SPLIT_IMAGES = 256


class InceptionScore(DistributionMetric):
    """Inception score (Salimans et al., arXiv:1606.03498) as torch-fidelity computes it.

    The mean over splits of the shuffled images of ``exp(mean KL(p(y|x) || p(y)))``, with the
    logits' bias left out. The interval comes from the spread over the splits.
    """

    name = "inception_score"
    headline = Headline(50, "Inception score", "generated")
    higher_is_better = True
    tolerance = 0.05
    extractors = ("inception_torch_fidelity",)
    selects_epochs = True

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """The mean over the protocol's splits, of at least two images each."""
        logits = _logits(pair)
        n, splits = len(logits), self.protocol.inception_score_splits
        if n < 2 * splits:
            return f"{n} images: inception_score_splits={splits} needs {2 * splits}"
        order = np.random.RandomState(SHUFFLE_SEED).permutation(n)
        return mean_with_error(split_scores(logits[order], splits), n)


class EfficientNetScore(InceptionScore):
    """The formula of the Inception score on logits of EfficientNet-Lite0; no Inception score."""

    name = "efficientnet_score"
    extractors = ("efficientnet_lite0",)
    selects_epochs = False


class OfficialInceptionScore(DistributionMetric):
    """Inception score as FSVAE's and ESVAE's code computes it, with torchvision's network.

    Ten splits of 256 images in order, or as many as the images fill. No value of
    ``inception_score`` compares with it: network, classes and preprocessing are others.
    """

    name = "inception_score_official"
    higher_is_better = True
    tolerance = 0.05
    extractors = ("inception_torchvision",)
    selects_epochs = True

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """The mean over the splits."""
        logits = _logits(pair)
        splits = min(len(logits) // OFFICIAL_SPLIT_IMAGES, OFFICIAL_SPLITS)
        if not splits:
            return f"{len(logits)} images: a split of the official code has 256"
        n = splits * OFFICIAL_SPLIT_IMAGES
        return mean_with_error(split_scores(logits[:n], splits), n)


def split_scores(logits: Tensor, splits: int) -> np.ndarray:
    """``exp(mean KL(p(y|x) || p(y)))`` of each of ``splits`` parts of logits ``(N, K)``, in order.

    Between 1 (all images alike, or nothing known of any) and K.
    """
    log_p = logits.double().log_softmax(1)
    bounds = [i * len(logits) // splits for i in range(splits + 1)]
    scores = []
    for start, end in pairwise(bounds):
        part = log_p[start:end]
        # In logarithms, so that a class that all but vanishes is no infinity.
        marginal = part.logsumexp(0) - math.log(len(part))
        scores.append((part.exp() * (part - marginal)).sum(1).mean().exp().item())
    return np.array(scores)


def _logits(pair: FeaturePair) -> Tensor:
    assert pair.generated.logits is not None
    return pair.generated.logits
