"""Precision, recall, density and coverage: overlap of two sets of images in feature space.

Around each image of a set lies a ball that reaches to its k-th nearest other image of the set,
boundary included; k is the protocol's ``neighbours``. The union of the balls is the set's manifold.

Each metric is a mean over the images of one set. Its interval comes from the spread over these
images, with the other set held fixed.
"""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors

from bench.metrics.distribution import DistributionMetric, Estimate, counts, mean_with_error
from bench.metrics.feature_pairs import FeaturePair
from bench.store.schema import NOT_NEGATIVE, SHARE

# Squared distances are sums of products with an error of about 1e-14 of the largest one. Distances
# that differ by less than this share of it count as equal.
SAME = 1e-12
WORKING_MEBIBYTES = 64


@dataclass(frozen=True)
class Neighbourhoods:
    """Overlap of N generated and M reference images: membership in each other's balls.

    Attributes:
        balls_around_generated: number of reference balls that contain each generated image,
            integers ``(N,)``.
        reference_reached: True for reference images that lie in the ball of a generated image,
            boolean ``(M,)``.
        reference_filled: True for reference images whose ball contains a generated image, boolean
            ``(M,)``.
    """

    balls_around_generated: np.ndarray
    reference_reached: np.ndarray
    reference_filled: np.ndarray


class _NeighbourMetric(DistributionMetric):
    """Mean over images of a score that depends on the neighbourhoods."""

    higher_is_better = True
    tolerance = 0.05
    extractors = ("inception_torch_fidelity",)

    @abstractmethod
    def scores(self, overlap: Neighbourhoods) -> np.ndarray:
        """Return the score of each image, ``(N,)`` or ``(M,)``; the metric is their mean."""

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """Return the mean over images, which needs more than k images in each set."""
        n, k = len(pair.generated.pool), self.protocol.neighbours
        if min(n, pair.reference_count) <= k:
            return counts(pair) + f"neighbours={k} needs {k + 1} of each"
        return mean_with_error(self.scores(pair.once(_neighbourhoods_of_pair, k)), n)


class Precision(_NeighbourMetric):
    """Share of generated images that lie on the manifold of the reference, in [0, 1].

    Higher is better. Kynkäänniemi et al. (arXiv:1904.06991, equation 2).
    """

    name = "precision"
    bounds = SHARE

    def scores(self, overlap: Neighbourhoods) -> np.ndarray:
        """Return whether each generated image lies in a reference ball, boolean ``(N,)``."""
        return overlap.balls_around_generated > 0


class Recall(_NeighbourMetric):
    """Share of reference images that lie on the manifold of the generated images, in [0, 1].

    Higher is better. Kynkäänniemi et al. (arXiv:1904.06991, equation 2).
    """

    name = "recall"
    bounds = SHARE

    def scores(self, overlap: Neighbourhoods) -> np.ndarray:
        """Return whether each reference image lies in a generated ball, boolean ``(M,)``."""
        return overlap.reference_reached


class DINOv2Precision(Precision):
    """Precision in the space of DINOv2 features (Stein et al., arXiv:2306.04675)."""

    name = "precision_dinov2"
    label = "precision, DINOv2"
    extractors = ("dinov2",)


class DINOv2Recall(Recall):
    """Recall in the space of DINOv2 features (Stein et al., arXiv:2306.04675)."""

    name = "recall_dinov2"
    label = "recall, DINOv2"
    extractors = ("dinov2",)


class Density(_NeighbourMetric):
    """Mean number of reference balls that contain a generated image, divided by k.

    0 or more, can exceed 1; higher is better. Naeem et al. (arXiv:2002.09797, section 3.2).
    """

    name = "density"
    bounds = NOT_NEGATIVE

    def scores(self, overlap: Neighbourhoods) -> np.ndarray:
        """Return the number of reference balls around each generated image over k, ``(N,)``."""
        return overlap.balls_around_generated / self.protocol.neighbours


class Coverage(_NeighbourMetric):
    """Share of reference balls that contain a generated image, in [0, 1].

    Higher is better. Naeem et al. (arXiv:2002.09797, section 3.2).
    """

    name = "coverage"
    bounds = SHARE

    def scores(self, overlap: Neighbourhoods) -> np.ndarray:
        """Return whether each reference ball contains a generated image, boolean ``(M,)``."""
        return overlap.reference_filled


def neighbourhoods(generated: np.ndarray, reference: np.ndarray, k: int) -> Neighbourhoods:
    """Find which images lie in the balls of the other set.

    Args:
        generated: features ``(N, D)`` of the generated images, float64.
        reference: features ``(M, D)`` of the reference images, float64.
        k: number of the neighbour that a ball reaches to; less than N and M.

    >>> generated, reference = np.array([[0.0], [1.0]]), np.array([[1.5], [2.0], [9.0]])
    >>> overlap = neighbourhoods(generated, reference, k=1)
    >>> overlap.balls_around_generated  # 1.0 lies in the ball of 1.5, of radius 0.5
    array([0, 1])
    >>> overlap.reference_reached  # 1.5 and 2.0 lie in the ball of 1.0, of radius 1
    array([ True,  True, False])
    >>> overlap.reference_filled
    array([ True, False, False])
    """
    slack = SAME * max(np.square(generated).sum(1).max(), np.square(reference).sum(1).max())
    generated_limits = _squared_radii(generated, k) + slack
    reference_limits = _squared_radii(reference, k) + slack
    reached, filled = np.zeros((2, len(reference)), bool)

    def count_chunk(squares: np.ndarray, start: int) -> np.ndarray:
        """Count the balls around P generated images from squared distances ``(P, M)``."""
        limits = generated_limits[start : start + len(squares), None]
        np.logical_or(reached, (squares <= limits).any(0), out=reached)
        inside = squares <= reference_limits
        np.logical_or(filled, inside.any(0), out=filled)
        return inside.sum(1)

    chunks = pairwise_distances_chunked(
        generated,
        reference,
        reduce_func=count_chunk,
        metric="euclidean",
        squared=True,
        working_memory=WORKING_MEBIBYTES,
    )
    return Neighbourhoods(np.concatenate(list(chunks)), reached, filled)


def _neighbourhoods_of_pair(pair: FeaturePair, k: int) -> Neighbourhoods:
    return neighbourhoods(pair.generated.pool.double().numpy(), pair.reference.double().numpy(), k)


def _squared_radii(centres: np.ndarray, k: int) -> np.ndarray:
    """Return the squared distance ``(M,)`` of each of ``(M, D)`` to its k-th nearest other one."""
    reach, _ = NearestNeighbors(n_neighbors=k).fit(centres).kneighbors()
    return np.square(reach[:, -1])
