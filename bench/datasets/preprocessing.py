"""Steps that all datasets share: cropping, resizing, drawing of subsets, fingerprints."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from bench.datasets.dataset import Dataset, DatasetInfo, ImageData, Split, Variant
from bench.datasets.dataset_contract import read_stored
from bench.datasets.image_files import decode, decode_range
from bench.datasets.value_range import ValueRange
from bench.errors import BenchError, DataUnavailableError
from bench.protocol import Protocol

SEED = 0


def prepare(images: np.ndarray | Iterable[Image.Image], protocol: Protocol) -> np.ndarray:
    """Crop and resize images exactly as PIL does.

    Args:
        images: uint8 images ``(N, H, W)``, ``(N, H, W, 1)`` or ``(N, H, W, 3)``, or grey or RGB PIL
            images; at least one.
        protocol: source of ``center_crop``, ``image_size`` and ``interpolation``. Without a
            ``center_crop``, an image is cropped to its largest central square.

    Returns:
        uint8 images ``(N, C, image_size, image_size)``.

    Raises:
        BenchError: if an image is smaller than the crop.
    """
    size = protocol.image_size
    if isinstance(images, np.ndarray):
        images = images[..., 0] if images.ndim == 4 and images.shape[-1] == 1 else images
        if images.shape[1:3] == (size, size) and protocol.center_crop in (None, size):
            return _channels_first(images)
        images = map(Image.fromarray, images)
    return _stack(_square(image, protocol, "An image") for image in images)


def prepare_files(
    paths: Iterable[Path], mode: str, protocol: Protocol, value_range: ValueRange | None = None
) -> np.ndarray:
    """Decode, crop and resize image files one by one, as :func:`prepare` does.

    Args:
        paths: paths of N image files, at least one.
        mode: PIL mode to convert the images to, ``L`` (grey) or ``RGB``.
        protocol: source of ``center_crop``, ``image_size`` and ``interpolation``.
        value_range: range of the stored values, which is mapped to 0..255; None for 8-bit files
            as they are.

    Returns:
        uint8 images ``(N, C, image_size, image_size)``.

    Raises:
        DataUnavailableError: if a file is missing, or is not a readable image.
        BenchError: if an image is smaller than the crop.
    """
    read = decode if value_range is None else partial(decode_range, value_range=value_range)
    return _stack(_square(read(path, mode), protocol, str(path)) for path in paths)


def draw(size: int, limit: int | None) -> np.ndarray:
    """Draw a random subset of ``range(size)``, the same in every call.

    Args:
        size: number of elements to draw from.
        limit: number of elements to draw; all if it is None or not smaller than ``size``.

    Returns:
        Sorted indices ``(min(limit, size),)``.

    >>> draw(3, None)
    array([0, 1, 2])
    >>> len(draw(100, 5))
    5
    """
    if limit is None or limit >= size:
        return np.arange(size)
    # RandomState draws the same numbers in every version of NumPy; default_rng need not.
    return np.sort(np.random.RandomState(SEED).permutation(size)[:limit])


def count_classes(train: np.ndarray | None, test: np.ndarray | None) -> tuple[int, ...] | None:
    """Return the number of training images of each class, up to the last class of both splits.

    Args:
        train: labels ``(N,)`` of the training images; None if they are unknown.
        test: labels ``(M,)`` of the test images; None if they are unknown.

    Returns:
        None if labels are unknown, or not counted from 0: negative, or above the number of images.

    >>> count_classes(np.array([0, 0, 2]), np.array([1, 3]))
    (2, 0, 1, 0)
    """
    if train is None or test is None:
        return None
    labels = np.concatenate([train, test]).astype(np.int64)
    if labels.min() < 0 or labels.max() > len(labels):
        return None
    return tuple(np.bincount(labels[: len(train)], minlength=labels.max() + 1).tolist())


def fingerprint_arrays(train: Split, test: Split) -> str:
    """Return the SHA-256 of the splits' arrays (dtypes, shapes, values) as 64 hex digits."""
    digest = hashlib.sha256()
    for array in (train.images, train.labels, test.images, test.labels):
        described = None if array is None else [array.dtype.str, array.shape]
        digest.update(json.dumps(described).encode())
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def fingerprint_files(files: Iterable[tuple[str, Path | bytes]]) -> str:
    """Return the SHA-256 of the given names and of the files' bytes, in order, as 64 hex digits.

    Args:
        files: name of each file, and its path or its content.

    Raises:
        DataUnavailableError: if a file cannot be read.
    """
    digest = hashlib.sha256()
    for name, file in files:
        digest.update(json.dumps([name, _sha256(file)]).encode())
    return digest.hexdigest()


def _sha256(file: Path | bytes) -> str:
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise DataUnavailableError(f"{file} cannot be read: {error.strerror}.") from error


def require_here(dataset: Dataset) -> None:
    """Raise an error if the dataset is missing.

    Raises:
        DataUnavailableError: if the dataset is missing; the message names the missing file.
    """
    reason = dataset.missing()
    if reason is not None:
        raise DataUnavailableError(f"The dataset {dataset.name!r} is not available: {reason}.")


class InMemoryDataset(Dataset):
    """Base class of datasets that are small enough to hold in memory as they are stored."""

    @abstractmethod
    def read(self) -> tuple[Split, Split]:
        """Return the train and test splits as stored.

        Images are uint8 with the channels *last*, ``(N, H, W)`` or ``(N, H, W, 3)``.

        Raises:
            DataUnavailableError: if the dataset is missing, corrupt or truncated.
        """

    @abstractmethod
    def variant(self, train: Split, test: Split) -> Variant:
        """Return ``complete``, ``subset`` or ``substitute`` for the stored splits."""

    def info(self) -> DatasetInfo:
        """Describe the dataset; this reads all of it."""
        train, test = self._read()
        return DatasetInfo(
            name=self.name,
            shape=_channels_first(train.images[:1]).shape[1:],
            train_size=len(train),
            test_size=len(test),
            source=self.source,
            licence=self.licence,
            fingerprint=fingerprint_arrays(train, test),
            variant=self.variant(train, test),
            class_counts=count_classes(train.labels, test.labels),
            notes=self.notes(),
        )

    def notes(self) -> tuple[str, ...]:
        """Return what the user should know about the stored data, each in one line."""
        return ()

    def load(self, protocol: Protocol) -> ImageData:
        """Load both splits: draw the protocol's subset, then crop and resize the images."""
        train, test = self._read()
        return ImageData(
            train=_prepared(train, protocol.train_images, protocol),
            test=_prepared(test, protocol.test_images, protocol),
        )

    def _read(self) -> tuple[Split, Split]:
        return read_stored(self, self.read)


def _prepared(split: Split, limit: int | None, protocol: Protocol) -> Split:
    drawn = draw(len(split), limit)
    labels = None if split.labels is None else split.labels[drawn]
    return Split(prepare(split.images[drawn], protocol), labels)


def _square(image: Image.Image, protocol: Protocol, what: str) -> np.ndarray:
    """Crop and resize one image to an array ``(C, image_size, image_size)``."""
    side = protocol.center_crop or min(image.size)
    if side > min(image.size):
        raise BenchError(
            f"{what} of {image.width}x{image.height} pixels is smaller than the protocol's "
            f"center_crop of {side}: choose center_crop <= {min(image.size)}."
        )
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    cropped = image.crop((left, top, left + side, top + side))
    size = (protocol.image_size, protocol.image_size)
    resized = cropped.resize(size, Image.Resampling[protocol.interpolation.upper()])
    return _channels_first(np.asarray(resized)[None])[0]


def _channels_first(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _stack(images: Iterator[np.ndarray]) -> np.ndarray:
    """Stack images ``(C, H, W)`` to ``(N, C, H, W)``, without holding each image twice."""
    first = next(images)
    return np.fromiter(chain([first], images), dtype=np.dtype((np.uint8, first.shape)))
