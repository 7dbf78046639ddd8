"""Memorisation: whether generated images lie closer to training images than unseen images do.

All metrics compare Euclidean distances to the nearest training image in feature space, over all
training images of the cell. The training images are held fixed in every interval.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import pairwise_distances_argmin
from sklearn.neighbors import NearestNeighbors

from bench.metrics.distribution import DistributionMetric, Estimate
from bench.metrics.feature_pairs import FeaturePair
from bench.metrics.uncertainty import wilson_interval
from bench.store.schema import SHARE, TEST, TRAIN

VECTORS_AT_ONCE = 1000
# Features of one image in float32 differ by about 1e-6 of their length from batch to batch.
SAME = 1e-5
# Up to 8 images, SciPy's test uses the exact distribution and not the normal one.
RANK_TEST_IMAGES = 9


class MemorisationMetric(DistributionMetric):
    """A metric of distances to training images in the feature space of its one extractor.

    A cell with a value of such a metric keeps some samples and the training images nearest to them,
    for the plot ``nearest_training_images``.
    """

    extractors = ("inception_torch_fidelity",)
    splits: ClassVar[tuple[str, ...] | None] = (TRAIN, TEST)


class Authenticity(MemorisationMetric):
    """Share of generated images that are no noisy copies of a training image, in [0, 1].

    Alaa et al. (arXiv:2102.08921, section 5): an image is authentic if its distance to the nearest
    training image is larger than the distance of this training image to its own nearest other
    training image. Equal distances are no evidence of authenticity: an exact copy of an image that
    the training set has twice is not authentic. Higher is better, and images of noise have 1, so
    read it with a measure of quality. Unseen images have less than 1: about 0.6 for normal features
    in 8 dimensions and 0.8 in 64. The interval is Wilson's.
    """

    name = "authenticity"
    label = "authenticity, Inception"
    bounds = SHARE
    splits = (TRAIN,)
    higher_is_better = True
    tolerance = 0.05

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """Return the share, which needs two training images."""
        n, trained = len(pair.generated.pool), pair.count(TRAIN)
        if trained < 2:
            return f"{trained} training images: authenticity needs 2"
        nearest = pair.once(_nearest_to_generated)
        limits = pair.once(_distances_within_training)
        authentic = int((nearest.distances > limits).sum())
        return Estimate(authentic / n, None, n, wilson_interval(authentic, n))


class AutoencoderAuthenticity(Authenticity):
    """Authenticity in the feature space of FAD's autoencoder."""

    name = "autoencoder_authenticity"
    label = "authenticity, autoencoder"
    extractors = ("autoencoder",)


class DataCopyingTest(MemorisationMetric):
    """The test C_T for data-copying: z-score of generated against test images' distances.

    Meehan, Chaudhuri and Dasgupta (arXiv:2004.05675, section 3): the Mann-Whitney U statistic of
    the distances to the nearest training image. Below -1.96, generated images are closer to the
    training images than test images are, which is evidence of copying; above 1.96 they are farther
    away, which is evidence of underfitting; so there is no better direction. The z-score grows
    with the number of images, so compare values of equal ``n`` only.

    The paper also averages the z-scores of the cells of a partition of feature space. This is the
    test of one cell, which needs no clusters and holds for few images. It does not see copies in
    one region if images in another are far from the training images. :func:`rank_test` gives the
    standard error behind the interval, None if all distances of one set are below the other's.
    """

    name = "data_copying_test"
    label = "data-copying test, Inception"
    higher_is_better = None
    tolerance = 0.1

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """Return the z-score, whose normal distribution needs more than 8 images in each set."""
        n, tested = len(pair.generated.pool), pair.count(TEST)
        if min(n, tested) < RANK_TEST_IMAGES:
            return _counts(pair) + f"the z-score needs {RANK_TEST_IMAGES} of each"
        z, error = rank_test(
            pair.once(_nearest_to_generated).distances, pair.once(_distances_of_test_images)
        )
        return Estimate(z, error or None, n)


class AutoencoderDataCopyingTest(DataCopyingTest):
    """The test C_T for data-copying in the feature space of FAD's autoencoder."""

    name = "autoencoder_data_copying_test"
    label = "data-copying test, autoencoder"
    extractors = ("autoencoder",)


class TrainingDistanceRatio(MemorisationMetric):
    """Ratio of mean distances to the nearest training image: generated over test images.

    1 if generated images are as far from the training images as unseen images are, less if they
    are copies, more if they are unlike the data; so there is no better direction.
    :func:`ratio_of_means` gives the standard error behind the interval.
    """

    name = "training_distance_ratio"
    label = "distance to training images, to test images; Inception"
    higher_is_better = None
    tolerance = 0.05

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """Return the ratio, which needs test images that are not all training images."""
        generated = pair.once(_nearest_to_generated).distances
        tested = pair.once(_distances_of_test_images)
        if not tested.any():
            return _counts(pair) + "every test image has the features of a training image"
        ratio, error = ratio_of_means(generated, tested)
        return Estimate(ratio, error, len(generated))


class AutoencoderTrainingDistanceRatio(TrainingDistanceRatio):
    """Ratio of distances to the training images in the feature space of FAD's autoencoder."""

    name = "autoencoder_training_distance_ratio"
    label = "distance to training images, to test images; autoencoder"
    extractors = ("autoencoder",)


@dataclass(frozen=True)
class Nearest:
    """The nearest image of a set to each of N images.

    Attributes:
        indices: index of the nearest image, integers ``(N,)``.
        distances: Euclidean distance to it, float64 ``(N,)``.
    """

    indices: np.ndarray
    distances: np.ndarray


def nearest(features: np.ndarray, others: np.ndarray) -> Nearest:
    """Find the nearest of M feature vectors to each of N, in parts to save memory.

    Distances below 1e-5 of the vector's length are 0, so that equal images have the distance 0 also
    if an extractor's rounding depends on the batch.

    Args:
        features: feature vectors ``(N, D)``, float32 or float64.
        others: feature vectors ``(M, D)`` of the same type, M at least 1.

    >>> found = nearest(np.array([[0.0], [4.0]]), np.array([[1.0], [4.0], [9.0]]))
    >>> found.indices, found.distances
    (array([0, 1]), array([1., 0.]))
    """
    indices = pairwise_distances_argmin(features, others)
    return Nearest(indices, _distances(features, others, indices))


def distances_within(features: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the distance of chosen vectors of a set to their nearest other vector of the set.

    Args:
        features: feature vectors ``(M, D)``, M at least 2.
        chosen: indices ``(N,)`` of vectors, integers in 0..M-1, in which an index can recur.

    Returns:
        Distances ``(N,)``, float64; 0 for a vector that the set has twice.

    >>> distances_within(np.array([[0.0], [1.0], [3.0]]), np.array([2, 0, 2]))
    array([2., 1., 2.])
    """
    distinct, places = np.unique(chosen, return_inverse=True)
    finder = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(features)
    first, second = finder.kneighbors(features[distinct], return_distance=False).T
    others = np.where(first == distinct, second, first)
    return _distances(features[distinct], features, others)[places]


def rank_test(sample: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return the z-score of the Mann-Whitney U statistic, and its standard error.

    U is the number of pairs in which the value of the first sample is larger; equal values count
    half. With P = U / (n m), the z-score is ``(P - 1/2) sqrt(12 n m / (n + m + 1))``. The standard
    error is the same multiple of the error of P (DeLong et al., Biometrics 44, 1988), which is
    valid for samples of unequal distributions too; it is about 1 for equal ones.

    Args:
        sample: values ``(N,)``, N at least 2.
        other: values ``(M,)`` to compare with, M at least 2.

    >>> z, error = rank_test(np.array([1.0, 2.0, 5.0]), np.array([3.0, 4.0, 6.0]))
    >>> round(z, 3), round(error, 3)
    (-1.091, 0.976)
    """
    n, m = len(sample), len(other)
    ranks = rankdata(np.concatenate([sample, other]))
    # Share of the other sample's values that are smaller than each value, equal ones counting half.
    above = (ranks[:n] - rankdata(sample)) / m
    below = 1 - (ranks[n:] - rankdata(other)) / n
    scale = math.sqrt(12 * n * m / (n + m + 1))
    variance = above.var(ddof=1) / n + below.var(ddof=1) / m
    return float(scale * (above.mean() - 0.5)), float(scale * math.sqrt(variance))


def ratio_of_means(sample: np.ndarray, other: np.ndarray) -> tuple[float, float | None]:
    """Return the ratio of the means of two independent samples, and its standard error.

    By the delta method, the error is ``sqrt(s_x^2 / n + r^2 s_y^2 / m) / mean y`` for the ratio
    r and the unbiased variances s^2.

    Args:
        sample: values ``(N,)``.
        other: values ``(M,)``, 0 or more and not all 0.

    Returns:
        The ratio, and its standard error: None if a sample has one value only or neither varies.

    >>> ratio, error = ratio_of_means(np.array([1.0, 3.0]), np.array([4.0, 4.0]))
    >>> ratio, round(error, 3)
    (0.5, 0.25)
    """
    ratio = float(sample.mean() / other.mean())
    if min(len(sample), len(other)) < 2:
        return ratio, None
    variances = [values.var(ddof=1) / len(values) for values in (sample, other)]
    error = math.sqrt(variances[0] + ratio**2 * variances[1]) / float(other.mean())
    return ratio, error or None


def _counts(pair: FeaturePair) -> str:
    return f"{len(pair.generated.pool)} generated and {pair.count(TEST)} test images: "


def _distances(features: np.ndarray, others: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return the distances ``(N,)`` of ``(N, D)`` to the vectors of ``(M, D)`` with the indices."""
    found = np.empty(len(features))
    for start in range(0, len(features), VECTORS_AT_ONCE):
        part = slice(start, start + VECTORS_AT_ONCE)
        vectors = features[part].astype(np.float64)
        apart = np.linalg.norm(vectors - others[indices[part]], axis=1)
        found[part] = np.where(apart > SAME * np.linalg.norm(vectors, axis=1), apart, 0)
    return found


def _nearest_to_generated(pair: FeaturePair) -> Nearest:
    return nearest(pair.generated.pool.numpy(), pair.of_split(TRAIN).numpy())


def _distances_of_test_images(pair: FeaturePair) -> np.ndarray:
    return nearest(pair.of_split(TEST).numpy(), pair.of_split(TRAIN).numpy()).distances


def _distances_within_training(pair: FeaturePair) -> np.ndarray:
    """Return how far the training image next to each generated image is from the other ones."""
    indices = pair.once(_nearest_to_generated).indices
    return distances_within(pair.of_split(TRAIN).numpy(), indices)
