"""The contract of a dataset: a source that describes itself and loads uint8 images on request."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from bench.protocol import Protocol

Variant = Literal["complete", "subset", "substitute"]


@dataclass(frozen=True)
class DatasetInfo:
    """Description of a dataset on disk, before any preprocessing.

    Attributes:
        name: name of the dataset in cells and rows.
        shape: shape ``(C, H, W)`` of an image; H and W are None if the images differ in size.
        train_size: number of training images.
        test_size: number of test images.
        source: origin of the images, as text.
        licence: terms of use, as text.
        fingerprint: SHA-256 of the content of both splits, as 64 hex digits.
        variant: ``complete``; ``subset`` if images of the named dataset are missing;
            ``substitute`` if a local file or folder takes the name of a registered dataset.
        class_counts: number of training images of each class, from class 0 on; None if the classes
            are unknown, and then no class-conditional model can be trained.
        notes: what the user should know, such as files that are left out, each in one line. Two
            datasets with the same content are equal whatever the notes.
    """

    name: str
    shape: tuple[int, int | None, int | None]
    train_size: int
    test_size: int
    source: str
    licence: str
    fingerprint: str
    variant: Variant
    class_counts: tuple[int, ...] | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def channels(self) -> int:
        """Number of channels: 1 (grey) or 3 (RGB)."""
        return self.shape[0]


@dataclass(frozen=True)
class Split:
    """Images of one split, and their labels if they are known.

    Attributes:
        images: uint8 images. After preprocessing ``(N, C, H, W)``; as stored, ``(N, H, W)`` or
            ``(N, H, W, 3)``.
        labels: integer labels ``(N,)``, or None if they are unknown.
    """

    images: np.ndarray
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class ImageData:
    """Preprocessed dataset in memory, with square images of the protocol's size.

    Attributes:
        train: training images ``(N, C, image_size, image_size)`` and their labels.
        test: test images ``(M, C, image_size, image_size)`` and their labels.
        validation: validation images ``(V, C, image_size, image_size)``; None if there are none, or
            the protocol compares nothing with them.
    """

    train: Split
    test: Split
    validation: Split | None = None


class Dataset(ABC):
    """Base class of datasets: one source of images under a data root.

    The constructor does no work. Only ``fetch`` uses the network.

    Attributes:
        name: name of the dataset in cells and rows.
        source: origin of the images, as text.
        licence: terms of use, as text.
        root: folder that contains the dataset's files.
        dark: True if all values can be below 64 of 255. Otherwise such images are refused: mostly
            they were scaled wrongly.
    """

    name: str
    source: str
    licence: str
    dark: bool = False

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def missing(self) -> str | None:
        """Return the missing file or folder, as in ``looked for PATH``, or None if all exist."""

    @abstractmethod
    def fetch(self) -> None:
        """Download missing files into the root, and check their hashes.

        Raises:
            DataUnavailableError: if the dataset is unavailable; the message says why and what to
                do.
        """

    @abstractmethod
    def info(self) -> DatasetInfo:
        """Describe the dataset.

        Raises:
            DataUnavailableError: if the dataset is missing, corrupt or truncated.
        """

    @abstractmethod
    def load(self, protocol: Protocol) -> ImageData:
        """Load both splits, with the subset, crop and image size that the protocol sets.

        A dataset with a validation split loads it too if ``official_fid_split`` names it.

        Args:
            protocol: a protocol resolved for this dataset.

        Raises:
            DataUnavailableError: if the dataset is missing, corrupt or truncated.
        """
