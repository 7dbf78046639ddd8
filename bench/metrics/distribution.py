"""What metrics of generated images against a reference share: features kept on disk, one row."""

import math
import tempfile
import weakref
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from bench.metrics.base import Batch, Facts, Metric, Observation
from bench.metrics.extractors.base import Extractors
from bench.metrics.uncertainty import interval
from bench.protocol import Protocol


class Spool:
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


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error, None where there is none, and how many images it is of."""

    value: float
    standard_error: float | None
    n: int


class DistributionMetric(Metric):
    """One number about the features of all generated images.

    The 95 % confidence interval is the value and 1.96 standard errors either side.

    Attributes:
        part: which of the extractor's features it rests on.
    """

    unit = "1"
    needs = frozenset({"generated"})
    part: ClassVar[Literal["pool", "logits"]] = "pool"

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._generated = Spool()

    def inapplicable(self) -> str | None:
        """Too few images for Inception's 2,048 features, by the protocol."""
        n, least = self.protocol.generated_images, self.protocol.inception_minimum_images
        if n >= least or not any("inception" in name for name in self.extractors):
            return None
        return f"{n} generated images, of which Inception's features need {least} (protocol)"

    @abstractmethod
    def estimate(self, generated: Tensor, extractors: Extractors) -> Estimate | str:
        """The number from features ``(N, D)`` of generated images, or why there can be none."""

    def update(self, batch: Batch) -> None:
        """Add the features of generated images."""
        if batch.split == "generated":
            self._generated.add(getattr(batch.features(self.extractors[0]), self.part))

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """One observation, with its interval where there is a standard error."""
        assert facts.extractors is not None
        extractor = facts.extractors.get(self.extractors[0])
        found = self.estimate(self._generated.rows(), facts.extractors)
        row = Observation(
            None,
            n=self._generated.n,
            split="generated",
            extractor=extractor.description,
            extractor_sha256=extractor.sha256,
        )
        yield _not_applicable(row, found) if isinstance(found, str) else _filled(row, found)

    def reference(self, extractors: Extractors) -> Tensor:
        """Features ``(M, D)`` of the reference images.

        Raises:
            ValueError: a value is not finite.
        """
        pool = extractors.reference(self.extractors[0]).pool
        if not torch.isfinite(pool).all():
            raise ValueError("the features of the reference hold values that are not finite")
        return pool


def mean_with_error(values: np.ndarray, n: int) -> Estimate:
    """The mean of independent values and its standard error, None where all are the same."""
    error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
    return Estimate(float(values.mean()), error or None, n)


def _filled(row: Observation, found: Estimate) -> Observation:
    low, high = None, None
    if found.standard_error is not None:
        low, high = interval(found.value, found.standard_error)
    return replace(row, value=found.value, n=found.n, ci_low=low, ci_high=high)


def _not_applicable(row: Observation, reason: str) -> Observation:
    return replace(row, status="not_applicable", reason=reason)
