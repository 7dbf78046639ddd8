"""Precision, recall, density and coverage: how the neighbourhoods of two sets overlap.

A set's manifold is the union of balls, one around each of its images, that reach to the k-th
nearest other image of the set, boundary included. k is the protocol's ``neighbours``. Each is a
mean over images, and its interval comes from their spread, the other set taken as known.
"""

from abc import abstractmethod
from collections.abc import Callable

import numpy as np
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from bench.metrics.distribution import DistributionMetric, Estimate, mean_with_error
from bench.metrics.extractors.base import Extractors

# Squared distances are sums of products, exact to some 1e-14 of the largest: what differs by less
# than this part of it is the same.
SAME = 1e-12
WORKING_MEBIBYTES = 64


class _NeighbourMetric(DistributionMetric):
    higher_is_better = True
    tolerance = 0.05
    extractors = ("inception_torch_fidelity",)

    @abstractmethod
    def scores(self, generated: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """What each image adds to the mean, from float64 features ``(N, D)`` and ``(M, D)``."""

    def estimate(self, generated: Tensor, extractors: Extractors) -> Estimate | str:
        """The mean over images."""
        reference, k = self.reference(extractors), self.protocol.neighbours
        if min(len(generated), len(reference)) <= k:
            return (
                f"{len(generated)} generated and {len(reference)} reference images: "
                f"neighbours={k} needs {k + 1} of each"
            )
        values = self.scores(generated.double().numpy(), reference.double().numpy())
        return mean_with_error(values, len(generated))


class Precision(_NeighbourMetric):
    """The part of the generated images that lie on the reference's manifold.

    Kynkäänniemi et al. (arXiv:1904.06991).
    """

    name = "precision"

    def scores(self, generated: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Whether each generated image lies in a ball of the reference."""
        return balls_around(generated, reference, self.protocol.neighbours) > 0


class Recall(_NeighbourMetric):
    """The part of the reference images that lie on the generated images' manifold.

    Kynkäänniemi et al. (arXiv:1904.06991).
    """

    name = "recall"

    def scores(self, generated: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Whether each reference image lies in a ball of the generated ones."""
        return balls_around(reference, generated, self.protocol.neighbours) > 0


class Density(_NeighbourMetric):
    """How many of the reference's balls hold a generated image, in units of k; may exceed 1.

    Naeem et al. (arXiv:2002.09797).
    """

    name = "density"

    def scores(self, generated: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """The number of balls around each generated image, divided by k."""
        k = self.protocol.neighbours
        return balls_around(generated, reference, k) / k


class Coverage(_NeighbourMetric):
    """The part of the reference's balls that hold a generated image.

    Naeem et al. (arXiv:2002.09797).
    """

    name = "coverage"

    def scores(self, generated: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Whether the ball of each reference image holds a generated one."""
        return balls_filled(generated, reference, self.protocol.neighbours)


def balls_around(points: np.ndarray, centres: np.ndarray, k: int) -> np.ndarray:
    """In how many balls each of the points ``(N, D)`` lies, of those around centres ``(M, D)``."""
    limits = _squared_radii(points, centres, k)
    return _by_row(points, centres, lambda squares, start: (squares <= limits).sum(1))


def balls_filled(points: np.ndarray, centres: np.ndarray, k: int) -> np.ndarray:
    """Which of the balls around centres ``(M, D)`` hold one of the points ``(N, D)``."""
    limits = _squared_radii(points, centres, k)
    return _by_row(
        centres,
        points,
        lambda squares, start: squares.min(1) <= limits[start : start + len(squares)],
    )


def _squared_radii(points: np.ndarray, centres: np.ndarray, k: int) -> np.ndarray:
    """Up to where a squared distance is inside, ``(M,)``."""
    reach, _ = NearestNeighbors(n_neighbors=k).fit(centres).kneighbors()
    slack = SAME * max(np.square(points).sum(1).max(), np.square(centres).sum(1).max())
    return np.square(reach[:, -1]) + slack


def _by_row(
    rows: np.ndarray, columns: np.ndarray, reduce: Callable[[np.ndarray, int], np.ndarray]
) -> np.ndarray:
    """``reduce`` of the squared distances ``(n, M)`` of some rows at a time, and their start."""
    chunks = pairwise_distances_chunked(
        rows, columns, reduce_func=reduce, metric="sqeuclidean", working_memory=WORKING_MEBIBYTES
    )
    return np.concatenate(list(chunks))
