"""Images of the user in one ``.npz`` file, with the keys of MedMNIST or Keras."""

import difflib
import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.datasets.dataset import Split, Variant
from bench.datasets.preprocessing import InMemoryDataset, require_here
from bench.datasets.value_range import (
    FULL,
    ValueRange,
    describe_mapping,
    describe_values,
    likely_range,
    nearly_black,
    say_range,
    scaled_floats,
    to_bytes,
)
from bench.errors import DataUnavailableError

OWN_LICENCE = "given by the user's own file: unknown"
CONVENTIONS = (
    {"train_images": "train_labels", "test_images": "test_labels"},
    {"x_train": "y_train", "x_test": "y_test"},
)


class ArrayFile(InMemoryDataset):
    """Images and optional labels from one ``.npz`` file.

    The keys are ``train_images`` and ``test_images`` with optional ``train_labels`` and
    ``test_labels``, or Keras's ``x_train`` and ``x_test`` with optional ``y_train`` and ``y_test``.
    Images are integers that fill 0..255, of shape ``(N, H, W)``, ``(N, H, W, 1)`` or
    ``(N, H, W, 3)``; with a ``value_range``, which is mapped to 0..255, they are any numbers in it.
    Labels are integers of shape ``(N,)`` or ``(N, 1)``. Other keys are listed in the notes.

    Attributes:
        path: path of the file.
    """

    licence = OWN_LICENCE
    dark = True

    def __init__(
        self,
        name: str,
        path: Path,
        variant: Variant = "complete",
        value_range: ValueRange | None = None,
    ) -> None:
        super().__init__(path.parent)
        self.name = name
        self.source = f"local file {path}{describe_mapping(value_range)}"
        self.path = path
        self._variant = variant
        self._range = value_range

    def missing(self) -> str | None:
        """Return the path that was looked for, or None if the file exists."""
        return None if self.path.is_file() else f"looked for the file {self.path}"

    def fetch(self) -> None:
        """Check the file; nothing can be downloaded.

        Raises:
            DataUnavailableError: if the file is missing or invalid.
        """
        self.info()

    def variant(self, train: Split, test: Split) -> Variant:
        """Return the variant given to the constructor."""
        return self._variant

    def read(self) -> tuple[Split, Split]:
        """Return the verified train and test splits.

        Returns:
            Images ``(N, H, W)`` or ``(N, H, W, 3)`` uint8, and labels ``(N,)`` int64 or None.

        Raises:
            DataUnavailableError: if the file is unreadable, or one of its arrays is invalid.
        """
        with self._opened() as stored:
            keys = next((keys for keys in CONVENTIONS if keys.keys() <= stored.keys()), None)
            if keys is None:
                raise DataUnavailableError(
                    f"{self.path} has the keys {', '.join(stored) or '(none)'}: expected "
                    "train_images and test_images, or x_train and x_test."
                )
            self._check_labels_keys(stored, keys)
            train, test = (self._split(stored, *pair) for pair in keys.items())
        if train.images.shape[1:] != test.images.shape[1:]:
            first, second = keys
            raise self._unexpected(
                second,
                f"images of shape {test.images.shape[1:]}",
                f"{train.images.shape[1:]}, as {first} has",
            )
        if self._range is None:
            lowest, highest = _extremes(train.images, test.images)
            problem = nearly_black(lowest, highest)
            if problem is not None:
                convert = _conversion(likely_range(lowest, highest))
                raise DataUnavailableError(
                    f"{self.path}: {' and '.join(keys)} hold {problem}; or {convert}."
                )
        return train, test

    def notes(self) -> tuple[str, ...]:
        """Return a line about the keys that are left out, if there are any."""
        with self._opened() as stored:
            keys = next(keys for keys in CONVENTIONS if keys.keys() <= stored.keys())
            others = sorted(set(stored) - {*keys, *keys.values()})
        return (f"Left out of {self.path}: the keys {', '.join(others)}.",) if others else ()

    def _check_labels_keys(self, stored: Mapping[str, np.ndarray], keys: Mapping[str, str]) -> None:
        """Check that no other key looks like a misspelt key of missing labels.

        Raises:
            DataUnavailableError: if one does.
        """
        others = [key for key in stored if key not in {*keys, *keys.values()}]
        for labels in keys.values():
            near = difflib.get_close_matches(labels, others, n=1, cutoff=0.75)
            if labels not in stored and near:
                raise DataUnavailableError(
                    f"{self.path} has the key {near[0]} and no {labels}: rename the key to "
                    f"{labels}, or remove it."
                )

    @contextmanager
    def _opened(self) -> Iterator[Mapping[str, np.ndarray]]:
        require_here(self)
        if not zipfile.is_zipfile(self.path):
            raise DataUnavailableError(
                f"{self.path} is not a .npz file, or it is truncated: write it with "
                "numpy.savez(PATH, train_images=..., test_images=...)."
            )
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                yield stored
        except DataUnavailableError:
            raise
        except Exception as error:  # zipfile, zlib and NumPy raise different types
            raise DataUnavailableError(f"{self.path} cannot be read: {error}.") from error

    def _split(self, stored: Mapping[str, np.ndarray], images_key: str, labels_key: str) -> Split:
        images, labels = self._array(stored, images_key), None
        try:
            images = as_images(images, self._range)
            if labels_key in stored:
                images_key = labels_key
                labels = as_labels(self._array(stored, labels_key), len(images))
        except ValueError as error:
            raise DataUnavailableError(f"{self.path}: {images_key} {error}.") from error
        return Split(images, labels)

    def _array(self, stored: Mapping[str, np.ndarray], key: str) -> np.ndarray:
        """Read an array.

        Raises:
            DataUnavailableError: if it holds Python objects.
        """
        try:
            return np.asarray(stored[key])
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            raise self._unexpected(
                key,
                "Python objects, which are not read because allow_pickle can run code",
                "an array of numbers: save np.stack(images) if all have one shape, and else save "
                "the images as files and use folder:PATH",
            ) from error

    def _unexpected(self, key: str, actual: str, expected: str) -> DataUnavailableError:
        return DataUnavailableError(f"{self.path}: {key} holds {actual}; expected {expected}.")


def as_images(images: np.ndarray, value_range: ValueRange | None = None) -> np.ndarray:
    """Check images, and return them as uint8.

    Args:
        images: integers in 0..255, or numbers or booleans in ``value_range``, ``(N, H, W)``,
            ``(N, H, W, 1)`` or ``(N, H, W, 3)``.
        value_range: range of the values, which is mapped to 0..255; None for 0..255.

    Returns:
        uint8 images ``(N, H, W)`` or ``(N, H, W, 3)``.

    Raises:
        ValueError: if shape, type or values are invalid; the message says what the images hold and
            what was expected.
    """
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
        raise ValueError(
            f"holds shape {images.shape}; expected (N, H, W), (N, H, W, 1) or (N, H, W, 3)"
            f"{_reshaping(images.shape)}"
        )
    if images.size == 0:
        raise ValueError(f"holds shape {images.shape}; expected at least one image")
    images = images[..., 0] if images.shape[3:] == (1,) else images
    if value_range is not None:
        if images.dtype.kind not in "iufb":
            raise ValueError(f"holds {describe_values(images)}; expected numbers")
        return to_bytes(images, value_range)
    if images.dtype.kind not in "iu":
        raise ValueError(f"holds {describe_values(images)}; expected {_integers_expected(images)}")
    lowest, highest = _extremes(images)
    if lowest < 0 or highest > FULL[1]:
        likely = likely_range(lowest, highest)
        raise ValueError(
            f"holds {describe_values(images)}; expected values in 0..255: {_conversion(likely)}, "
            f"or say the range that they can have, for example {say_range(likely)}"
        )
    return images.astype(np.uint8)


def as_labels(labels: np.ndarray, images: int) -> np.ndarray:
    """Check labels ``(N,)`` or ``(N, 1)``, and return them as int64 ``(N,)``.

    Args:
        labels: integers.
        images: number N of images.

    Raises:
        ValueError: if shape or type are invalid; the message says what was expected.
    """
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.shape != (images,) or flat.dtype.kind not in "iu":
        raise ValueError(
            f"holds {flat.dtype} of shape {flat.shape}; expected one integer for each of the "
            f"{images} images, or no such key"
        )
    return flat.astype(np.int64)


def _extremes(*images: np.ndarray) -> tuple[float, float]:
    return min(array.min().item() for array in images), max(a.max().item() for a in images)


def _conversion(value_range: ValueRange) -> str:
    """Return the line of NumPy that maps integers to 0..255.

    >>> _conversion((0, 16))
    "convert with (images * (255 / 16)).round().astype('uint8')"
    """
    low, high = value_range
    shifted = f"(images - {low:g})" if low else "images"
    return f"convert with ({shifted} * (255 / {high - low:g})).round().astype('uint8')"


def _reshaping(shape: tuple[int, ...]) -> str:
    """Return the line of NumPy that brings images of another layout into shape, if it is clear.

    >>> _reshaping((60000, 3, 32, 32))
    ': convert with images.transpose(0, 2, 3, 1)'
    >>> _reshaping((60000, 784))
    ': convert with images.reshape(-1, 28, 28)'
    """
    line = None
    match shape:
        case (_, 1, _, _):
            line = "images[:, 0]"
        case (_, 3, _, _):
            line = "images.transpose(0, 2, 3, 1)"
        case (_, 4, _, _):
            line = "images[:, :3].transpose(0, 2, 3, 1)"
        case (_, _, _, 4):
            line = "images[..., :3]"
        case (_, _, 3, _) | (_, _, 1, _):
            line = "np.moveaxis(images, -1, 0)"
        case (_, pixels) if math.isqrt(pixels) ** 2 == pixels:
            line = f"images.reshape(-1, {math.isqrt(pixels)}, {math.isqrt(pixels)})"
        case (_, pixels) if 3 * math.isqrt(pixels // 3) ** 2 == pixels:
            side = math.isqrt(pixels // 3)
            line = f"images.reshape(-1, 3, {side}, {side}).transpose(0, 2, 3, 1)"
    return f": convert with {line}" if line else ""


def _integers_expected(images: np.ndarray) -> str:
    """Describe the expected integers and, for floats and booleans, the ways to them.

    >>> _integers_expected(np.array([0.0, 1.0]))  # doctest: +NORMALIZE_WHITESPACE
    "integers in 0..255: convert with (images * 255).round().clip(0, 255).astype('uint8'), or say
    --range 0,1 (in Python image_range=(0, 1))"
    """
    expected = "integers in 0..255"
    if images.dtype.kind == "b":
        return f"{expected}: {_conversion((0, 1))}, or say {say_range((0, 1))}"
    if images.dtype.kind != "f" or not np.isfinite(images).all():
        return expected
    lowest, highest = _extremes(images)
    scaled = scaled_floats(lowest, highest)
    return (
        f"{expected}: convert with ({scaled}).round().clip(0, 255).astype('uint8'), or say "
        f"{say_range(likely_range(lowest, highest))}"
    )
