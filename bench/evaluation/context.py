"""The context of a cell: its data and settings, shared by everything that evaluates its model."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from bench.metrics.extractors.extractor import ExtractorContext


@dataclass(frozen=True, kw_only=True)
class CellContext(ExtractorContext):
    """Data and settings of one cell.

    Attributes:
        seed: seed of every random draw.
        train_labels: classes of the training images, int64 ``(N,)``; None if unknown.
        test_labels: classes of the test images, int64 ``(M,)``; None if unknown.
        class_counts: number of training images of each class in the whole dataset; None if unknown.
    """

    seed: int
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    class_counts: Sequence[int] | None = None
