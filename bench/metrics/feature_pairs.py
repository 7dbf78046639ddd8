"""Features of all generated images beside those of the reference, shared by the metrics."""

import tempfile
import weakref
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from bench.metrics.extractors.extractor import Extractor, Extractors, Features

R = TypeVar("R")


class FeatureBuffer:
    """Rows of float32 in a temporary file, so that memory does not grow with their number.

    Attributes:
        n: how many rows.
    """

    def __init__(self) -> None:
        self.n = 0
        self._width = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def add(self, rows: Tensor) -> None:
        """Append rows ``(N, D)``.

        Raises:
            ValueError: a value is not finite, or D differs from that of the rows before.
        """
        if not torch.isfinite(rows).all():
            raise ValueError("the features hold values that are not finite")
        if self.n and rows.shape[1] != self._width:
            raise ValueError(f"features of {rows.shape[1]} values after {self._width}")
        self._file.write(rows.detach().cpu().float().contiguous().numpy().data)
        self.n, self._width = self.n + len(rows), rows.shape[1]

    def rows(self) -> Tensor:
        """All rows ``(N, D)``, read from disk when they are needed."""
        if not self.n:
            return torch.zeros(0, self._width)
        self._file.flush()
        shape = (self.n, self._width)
        return torch.from_numpy(np.memmap(self._file, np.float32, mode="c", shape=shape))


class FeaturePair:
    """What one extractor found in the generated and in the reference images.

    Attributes:
        extractor: the extractor.
        generated: features of the generated images, in order.
    """

    def __init__(self, name: str, generated: Features, extractors: Extractors) -> None:
        self.extractor = extractors.get(name)
        self.generated = generated
        self._name = name
        self._extractors = extractors
        self._known: dict[Hashable, Any] = {}

    @property
    def reference_count(self) -> int:
        """How many reference images there are."""
        return len(self._extractors.setting.reference_images)

    @cached_property
    def reference(self) -> Tensor:
        """Features ``(M, D)`` of the reference images.

        Raises:
            ValueError: a value is not finite.
        """
        pool = self._extractors.reference(self._name).pool
        if not torch.isfinite(pool).all():
            raise ValueError("the features of the reference hold values that are not finite")
        return pool

    def once(self, function: Callable[..., R], *arguments: Hashable) -> R:
        """``function(pair, *arguments)``, computed once for all metrics that ask."""
        key = (function, arguments)
        if key not in self._known:
            self._known[key] = function(self, *arguments)
        return self._known[key]


class GeneratedFeatures:
    """Collects the features of generated images, by extractor."""

    def __init__(self, extractors: Extractors) -> None:
        self._extractors = extractors
        self._collectors: dict[str, _Collector] = {}
        self._errors: dict[str, Exception] = {}
        self._pairs: dict[str, FeaturePair] = {}

    def add(self, name: str, images: Tensor) -> None:
        """Take in images ``(N, C, H, W)`` in [-1, 1]; :meth:`pair` raises what goes wrong."""
        if name in self._errors:
            return
        try:
            if name not in self._collectors:
                self._collectors[name] = _Collector(self._extractors.get(name))
            self._collectors[name].add(images)
        except Exception as error:
            self._errors[name] = error

    def pair(self, name: str) -> FeaturePair:
        """What was collected of an extractor's features, beside the reference's.

        Raises:
            Exception: what the extractor raised.
        """
        if name in self._errors:
            raise self._errors[name]
        if name not in self._pairs:
            generated = self._collectors[name].features()
            self._pairs[name] = FeaturePair(name, generated, self._extractors)
        return self._pairs[name]


class _Collector:
    """Keeps one extractor's features of a stream of images."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        self._pool, self._logits = FeatureBuffer(), FeatureBuffer()
        self._open: list[Tensor] = []

    def add(self, images: Tensor) -> None:
        size = self._extractor.generated_batch
        if size is None:
            self._take(images)
            return
        *full, rest = torch.cat([*self._open, images]).split(size)
        if len(rest) == size:
            full, rest = [*full, rest], rest[:0]
        for batch in full:
            self._take(batch)
        self._open = [rest.clone()] if len(rest) else []

    def features(self) -> Features:
        """Of all images; an incomplete batch goes through as it is."""
        for batch in self._open:
            self._take(batch)
        self._open = []
        return Features(self._pool.rows(), self._logits.rows() if self._logits.n else None)

    def _take(self, images: Tensor) -> None:
        found = self._extractor(images)
        self._pool.add(found.pool)
        if found.logits is not None:
            self._logits.add(found.logits)
