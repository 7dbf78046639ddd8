"""Images of the user in one ``.npz`` file, with the keys of MedMNIST or Keras."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.datasets.dataset import Split, Variant
from bench.datasets.preprocessing import InMemoryDataset, require_here
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
    Images are integers in 0..255 of shape ``(N, H, W)``, ``(N, H, W, 1)`` or ``(N, H, W, 3)``.
    Labels are integers of shape ``(N,)`` or ``(N, 1)``.

    Attributes:
        path: path of the file.
    """

    licence = OWN_LICENCE
    dark = True

    def __init__(self, name: str, path: Path, variant: Variant = "complete") -> None:
        super().__init__(path.parent)
        self.name = name
        self.source = f"local file {path}"
        self.path = path
        self._variant = variant

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
            train, test = (self._split(stored, *pair) for pair in keys.items())
        if train.images.shape[1:] != test.images.shape[1:]:
            first, second = keys
            raise self._unexpected(
                second,
                f"images of shape {test.images.shape[1:]}",
                f"{train.images.shape[1:]}, as {first} has",
            )
        return train, test

    @contextmanager
    def _opened(self) -> Iterator[Mapping[str, np.ndarray]]:
        require_here(self)
        if not zipfile.is_zipfile(self.path):
            raise DataUnavailableError(f"{self.path} is not a .npz file, or it is truncated.")
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                yield stored
        except DataUnavailableError:
            raise
        except Exception as error:  # zipfile, zlib and NumPy raise different types
            raise DataUnavailableError(f"{self.path} cannot be read: {error}.") from error

    def _split(self, stored: Mapping[str, np.ndarray], images_key: str, labels_key: str) -> Split:
        images = self._images(images_key, np.asarray(stored[images_key]))
        if labels_key not in stored:
            return Split(images, None)
        labels = np.asarray(stored[labels_key])
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise self._unexpected(
                labels_key,
                f"{labels.dtype} of shape {labels.shape}",
                f"one integer for each of the {len(images)} images, or no such key",
            )
        return Split(images, labels.astype(np.int64))

    def _images(self, key: str, images: np.ndarray) -> np.ndarray:
        """Check the images, and return them as uint8 ``(N, H, W)`` or ``(N, H, W, 3)``."""
        if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
            raise self._unexpected(
                key, f"shape {images.shape}", "(N, H, W), (N, H, W, 1) or (N, H, W, 3)"
            )
        if images.size == 0:
            raise self._unexpected(key, f"shape {images.shape}", "at least one image")
        if images.dtype.kind not in "iu":
            raise self._unexpected(key, _described(images), _integers_expected(images))
        if images.min() < 0 or images.max() > 255:
            raise self._unexpected(key, _described(images), "values in 0..255")
        return (images[..., 0] if images.shape[3:] == (1,) else images).astype(np.uint8)

    def _unexpected(self, key: str, actual: str, expected: str) -> DataUnavailableError:
        return DataUnavailableError(f"{self.path}: {key} holds {actual}; expected {expected}.")


def _described(images: np.ndarray) -> str:
    if images.dtype.kind not in "iuf":
        return str(images.dtype)
    if not np.isfinite(images).all():
        return f"{images.dtype} with non-finite values"
    return f"{images.dtype} values in {images.min():g}..{images.max():g}"


def _integers_expected(images: np.ndarray) -> str:
    """Describe the expected integers and, for floats, the conversion to them.

    >>> _integers_expected(np.array([0.0, 1.0]))
    "integers in 0..255: convert with (images * 255).round().clip(0, 255).astype('uint8')"
    """
    if images.dtype.kind == "f" and np.isfinite(images).all():
        lowest, highest = images.min(), images.max()
        if lowest >= 0:
            scaled = "images * 255" if highest <= 1 else "images"
        else:
            scaled = "(images + 1) * 127.5"
        return f"integers in 0..255: convert with ({scaled}).round().clip(0, 255).astype('uint8')"
    return "integers in 0..255"
