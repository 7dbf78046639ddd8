"""Labels for class-conditional models: of images that they see, and of images that they make."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.metrics.noise import derived_seed
from bench.model import GenerativeModel


@dataclass(frozen=True)
class ClassLabels:
    """Labels of images in their order.

    Attributes:
        values: int64 ``(N,)``; None for a model that takes no labels.
    """

    values: Tensor | None

    def of(self, first: int, n: int) -> dict[str, Tensor]:
        """Return the keyword argument ``labels`` of ``n`` images, ``(n,)``, if they have labels.

        >>> ClassLabels(torch.tensor([4, 2, 0])).of(1, 2)
        {'labels': tensor([2, 0])}
        >>> ClassLabels(None).of(1, 2)
        {}
        """
        return {} if self.values is None else {"labels": self.values[first : first + n]}


def labels_for(model: GenerativeModel, labels: Tensor | None) -> ClassLabels:
    """Return the labels of images, on the model's device, if the model takes any.

    Args:
        model: the model.
        labels: int64 ``(N,)``; None if they are unknown.

    Raises:
        ValueError: the model takes labels, and they are unknown.
    """
    if not model.class_conditional:
        return ClassLabels(None)
    if labels is None:
        raise ValueError("a class-conditional model needs labels, and they are unknown")
    return ClassLabels(labels.to(model.device))


def drawn_labels(
    model: GenerativeModel, class_counts: Sequence[int] | None, n: int, seed: int
) -> ClassLabels:
    """Draw labels for ``n`` images to generate, as often as the training images have them.

    Fewer labels of the same seed are the first of more.

    Args:
        model: the model.
        class_counts: number of training images of each class; None if the classes are unknown.
        n: number of labels.
        seed: seed of the cell.

    Raises:
        ValueError: the model takes labels, and the classes are unknown.
    """
    if not model.class_conditional or class_counts is None:
        return labels_for(model, None)
    shares = np.array(class_counts) / sum(class_counts)
    # RandomState draws the same numbers in every version of NumPy.
    random = np.random.RandomState(derived_seed(seed, "labels") % 2**32)
    return labels_for(model, torch.from_numpy(random.choice(len(shares), n, p=shares)))
