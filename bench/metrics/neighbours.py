"""Precision, recall, density and coverage: how the neighbourhoods of two sets overlap.

A set's manifold is the union of balls, one around each of its images, that reach to the k-th
nearest other image of the set, boundary included. k is the protocol's ``neighbours``. Each is a
mean over images, and its interval comes from their spread, the other set taken as known.
"""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors

from bench.metrics.distribution import DistributionMetric, Estimate, counts, mean_with_error
from bench.metrics.feature_pairs import FeaturePair

# Squared distances are sums of products, exact to some 1e-14 of the largest: what differs by less
# than this part of it is the same.
SAME = 1e-12
WORKING_MEBIBYTES = 64


@dataclass(frozen=True)
class Neighbourhoods:
    """Who lies in whose balls, of N generated and M reference images.

    Attributes:
        balls_around_generated: how many of the reference's balls each generated image lies in,
            ``(N,)``.
        reference_reached: whether each reference image lies in a generated one's ball, ``(M,)``.
        reference_filled: whether each reference image's ball holds a generated one, ``(M,)``.
    """

    balls_around_generated: np.ndarray
    reference_reached: np.ndarray
    reference_filled: np.ndarray


class _NeighbourMetric(DistributionMetric):
    higher_is_better = True
    tolerance = 0.05
    extractors = ("inception_torch_fidelity",)

    @abstractmethod
    def scores(self, found: Neighbourhoods) -> np.ndarray:
        """What each image adds to the mean."""

    def estimate(self, pair: FeaturePair) -> Estimate | str:
        """The mean over images."""
        n, k = len(pair.generated.pool), self.protocol.neighbours
        if min(n, pair.reference_count) <= k:
            return counts(pair) + f"neighbours={k} needs {k + 1} of each"
        return mean_with_error(self.scores(pair.once(_neighbourhoods_of_pair, k)), n)


class Precision(_NeighbourMetric):
    """The part of the generated images that lie on the reference's manifold.

    Kynkäänniemi et al. (arXiv:1904.06991).
    """

    name = "precision"

    def scores(self, found: Neighbourhoods) -> np.ndarray:
        """Whether each generated image lies in a ball of the reference."""
        return found.balls_around_generated > 0


class Recall(_NeighbourMetric):
    """The part of the reference images that lie on the generated images' manifold.

    Kynkäänniemi et al. (arXiv:1904.06991).
    """

    name = "recall"

    def scores(self, found: Neighbourhoods) -> np.ndarray:
        """Whether each reference image lies in a ball of the generated ones."""
        return found.reference_reached


class Density(_NeighbourMetric):
    """How many of the reference's balls hold a generated image, in units of k; may exceed 1.

    Naeem et al. (arXiv:2002.09797).
    """

    name = "density"

    def scores(self, found: Neighbourhoods) -> np.ndarray:
        """The number of balls around each generated image, in units of k."""
        return found.balls_around_generated / self.protocol.neighbours


class Coverage(_NeighbourMetric):
    """The part of the reference's balls that hold a generated image.

    Naeem et al. (arXiv:2002.09797).
    """

    name = "coverage"

    def scores(self, found: Neighbourhoods) -> np.ndarray:
        """Whether the ball of each reference image holds a generated one."""
        return found.reference_filled


def neighbourhoods(generated: np.ndarray, reference: np.ndarray, k: int) -> Neighbourhoods:
    """Who lies in whose balls, from float64 features ``(N, D)`` and ``(M, D)``, in one search."""
    slack = SAME * max(np.square(generated).sum(1).max(), np.square(reference).sum(1).max())
    generated_limits = _squared_radii(generated, k) + slack
    reference_limits = _squared_radii(reference, k) + slack
    reached, filled = np.zeros((2, len(reference)), bool)

    def take(squares: np.ndarray, start: int) -> np.ndarray:
        """In how many balls each of some generated images lies, who are noted in the others."""
        limits = generated_limits[start : start + len(squares), None]
        np.logical_or(reached, (squares <= limits).any(0), out=reached)
        inside = squares <= reference_limits
        np.logical_or(filled, inside.any(0), out=filled)
        return inside.sum(1)

    chunks = pairwise_distances_chunked(
        generated,
        reference,
        reduce_func=take,
        metric="euclidean",
        squared=True,
        working_memory=WORKING_MEBIBYTES,
    )
    return Neighbourhoods(np.concatenate(list(chunks)), reached, filled)


def _neighbourhoods_of_pair(pair: FeaturePair, k: int) -> Neighbourhoods:
    return neighbourhoods(pair.generated.pool.double().numpy(), pair.reference.double().numpy(), k)


def _squared_radii(centres: np.ndarray, k: int) -> np.ndarray:
    """The squared distance of each of ``(M, D)`` to the k-th nearest other one."""
    reach, _ = NearestNeighbors(n_neighbors=k).fit(centres).kneighbors()
    return np.square(reach[:, -1])
