"""Features of all generated images and of the dataset's images, shared by all metrics."""

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.metrics.extractors.extractor import Extractors, Features
from bench.metrics.extractors.feature_buffer import FeatureBuffer
from bench.metrics.frechet import Gaussian, moments

VECTORS_AT_ONCE = 1000
R = TypeVar("R")


class FeaturePair:
    """Features that one extractor computed from the generated and from the dataset's images.

    Args:
        name: registered name of the extractor.
        generated: features of all generated images, in order.
        extractors: source of the extractor and of the features of the dataset's images.

    Attributes:
        extractor: the extractor.
        generated: features of all generated images, in order.
    """

    def __init__(self, name: str, generated: Features, extractors: Extractors) -> None:
        self.extractor = extractors.get(name)
        self.generated = generated
        self._name = name
        self._extractors = extractors
        self._known: dict[Hashable, Any] = {}

    @property
    def reference_count(self) -> int:
        """Number of reference images."""
        return self.count(self._extractors.reference_split(self._name))

    @property
    def reference(self) -> Tensor:
        """Pool features ``(M, D)`` of the M reference images, see :meth:`of_split`."""
        return self.of_split(self._extractors.reference_split(self._name))

    def count(self, split: str) -> int:
        """Return the number of images of a split."""
        return len(self._extractors.context.images_of(split))

    def of_split(self, split: str) -> Tensor:
        """Return the pool features ``(M, D)`` of the M images of a split.

        Args:
            split: ``train``, ``test`` or ``validation``.

        Raises:
            ValueError: a value is not finite.
        """
        return self.once(_split_features, split)

    @cached_property
    def reference_gaussian(self) -> Gaussian:
        """Mean and covariance of the reference: of given statistics, or else of the images.

        Raises:
            BenchError: the statistics were made with other weights, or have another dimension.
            ValueError: a value is not finite.
        """
        statistics = self._extractors.statistics(self._name)
        if statistics is None:
            return moments(self.reference)
        found, expected = len(statistics.mean), self.generated.pool.shape[1]
        if found != expected:
            file = self._extractors.context.resources.statistics[self._name]
            raise BenchError(
                f"{file.path} holds statistics of {found} features, and {self._name} computes "
                f"{expected}."
            )
        return statistics

    @property
    def smaller_count(self) -> int:
        """Number of images in the smaller set; given statistics count as enough images."""
        n = len(self.generated.pool)
        given = self._extractors.statistics(self._name)
        return n if given else min(n, self.reference_count)

    @property
    def reference_description(self) -> str:
        """Description of the extractor and of what the moments of its features are compared with.

        See :meth:`bench.metrics.extractors.extractor.Extractors.reference_description`.
        """
        return self._extractors.reference_description(self._name)

    def once(self, function: Callable[..., R], *arguments: Hashable) -> R:
        """Return ``function(self, *arguments)``, computed once for all metrics that ask for it.

        Args:
            function: function of a pair; compared by identity.
            *arguments: further arguments of the function.
        """
        key = (function, arguments)
        if key not in self._known:
            self._known[key] = function(self, *arguments)
        return self._known[key]


def _split_features(pair: FeaturePair, split: str) -> Tensor:
    pool = pair._extractors.of_split(pair._name, split).pool
    if not all(torch.isfinite(part).all() for part in pool.split(VECTORS_AT_ONCE)):
        raise ValueError(f"the features of the {split} images contain values that are not finite")
    return pool


class GeneratedFeatures:
    """Collects the features of generated images, by extractor.

    Errors of an extractor are kept until :meth:`pair`, so that they end only the metrics that use
    this extractor.
    """

    def __init__(self, extractors: Extractors) -> None:
        self._extractors = extractors
        self._collectors: dict[str, _Collector] = {}
        self._errors: dict[str, Exception] = {}
        self._pairs: dict[str, FeaturePair] = {}

    def add(self, name: str, images: Tensor) -> None:
        """Add the named extractor's features of images ``(N, C, H, W)`` in [-1, 1]."""
        if name in self._errors:
            return
        try:
            if name not in self._collectors:
                self._collectors[name] = _Collector(name, self._extractors)
            self._collectors[name].add(images)
        except Exception as error:
            self._errors[name] = error

    def pair(self, name: str) -> FeaturePair:
        """Return the collected features of the named extractor, paired with the reference.

        Raises:
            Exception: the extractor failed on an earlier batch; this is its exception.
        """
        if name in self._errors:
            raise self._errors[name]
        if name not in self._pairs:
            generated = self._collectors[name].features()
            self._pairs[name] = FeaturePair(name, generated, self._extractors)
        return self._pairs[name]


class _Collector:
    """Collects one extractor's features of a stream of images.

    An extractor whose features depend on the batch gets batches of exactly its size, whatever the
    size of the batches added here.
    """

    def __init__(self, name: str, extractors: Extractors) -> None:
        self._name, self._extractors = name, extractors
        self._pool, self._logits = FeatureBuffer(), FeatureBuffer()
        self._pending: list[Tensor] = []

    def add(self, images: Tensor) -> None:
        """Extract the features of images ``(N, C, H, W)``, or keep them for the next batch."""
        size = self._extractors.get(self._name).generated_batch
        if size is None:
            self._extract(images)
            return
        *full, rest = torch.cat([*self._pending, images]).split(size)
        if len(rest) == size:
            full, rest = [*full, rest], rest[:0]
        for batch in full:
            self._extract(batch)
        self._pending = [rest.clone()] if len(rest) else []

    def features(self) -> Features:
        """Return the features of all images; the last batch can be incomplete."""
        for batch in self._pending:
            self._extract(batch)
        self._pending = []
        return Features(self._pool.rows(), self._logits.rows() if self._logits.n else None)

    def _extract(self, images: Tensor) -> None:
        features = self._extractors.features(self._name, images)
        self._pool.add(features.pool)
        if features.logits is not None:
            self._logits.add(features.logits)
