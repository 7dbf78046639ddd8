"""The contract of a dataset: a source that says what it is, and gives uint8 images on request."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bench.protocol import Protocol

Variant = Literal["complete", "subset", "substitute"]


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset says of itself, as it lies on disk and before any preprocessing.

    Attributes:
        name: the name it goes by in cells and rows.
        shape: of an image ``(C, H, W)``; H and W are None where images differ in size.
        train_size: number of training images.
        test_size: number of test images.
        source: where it comes from, for people.
        licence: under what terms it is given, for people.
        fingerprint: SHA-256 of its content (both splits), as 64 hex digits.
        variant: ``complete``; ``subset`` if images of the named dataset are missing;
            ``substitute`` if a local file or folder stands in for a registered name.
    """

    name: str
    shape: tuple[int, int | None, int | None]
    train_size: int
    test_size: int
    source: str
    licence: str
    fingerprint: str
    variant: Variant

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return self.shape[0]


@dataclass(frozen=True)
class Split:
    """Images ``(N, C, H, W)`` uint8 and, where known, integer labels ``(N,)``."""

    images: np.ndarray
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class ImageData:
    """A dataset in memory, preprocessed: square images of the protocol's size."""

    train: Split
    test: Split


class Dataset(ABC):
    """One source of images under a data root.

    The constructor does no work. ``fetch`` is the only method that may use the network.
    """

    name: str
    source: str
    licence: str

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def missing(self) -> str | None:
        """Why the dataset is not here (what is looked for, and where), or None if it is."""

    @abstractmethod
    def fetch(self) -> None:
        """Download what is missing into the root and check its hashes.

        Raises:
            DataUnavailableError: it cannot be had, with the reason and the way out.
        """

    @abstractmethod
    def info(self) -> DatasetInfo:
        """Describe the dataset that is here.

        Raises:
            DataUnavailableError: it is missing, corrupt or truncated.
        """

    @abstractmethod
    def load(self, protocol: Protocol) -> ImageData:
        """Both splits, cropped and resized as a resolved protocol says.

        Raises:
            DataUnavailableError: it is missing, corrupt or truncated.
        """
