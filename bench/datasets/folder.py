"""Images of the user in a folder, with or without a subfolder per class."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from bench.datasets.arrays import OWN_LICENCE
from bench.datasets.dataset import Dataset, DatasetInfo, ImageData, Split, Variant
from bench.datasets.preprocessing import (
    SEED,
    draw,
    fingerprint_files,
    open_image,
    prepare_files,
    require_here,
)
from bench.errors import DataUnavailableError
from bench.protocol import Protocol

TEST_FRACTION = 0.2
GREY_MODES = {"1", "L", "LA"}
COLOUR_MODES = {"RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV"}


@dataclass(frozen=True)
class Listing:
    """Image files and their classes.

    Attributes:
        paths: paths of the N files.
        classes: sorted names of the class subfolders; empty if there are none.
        labels: index of each file's class, ``(N,)`` int64; None if there are no classes.
    """

    paths: list[Path]
    classes: list[str]
    labels: np.ndarray | None

    def take(self, indices: np.ndarray) -> "Listing":
        """Select files by their indices ``(M,)``; their labels stay the same."""
        labels = None if self.labels is None else self.labels[indices]
        return Listing([self.paths[i] for i in indices], self.classes, labels)


class ImageFolder(Dataset):
    """Images of any size in a folder, in any format that PIL reads with 8 bits per channel.

    The folder contains subfolders ``train`` and ``test``; otherwise 20 % of its images are drawn
    for testing, with a fixed seed. Each split contains images, or one subfolder of images per
    class. A label is the index of the class in alphabetical order. Hidden files, and files without
    the suffix of an image format, are ignored.

    If every image is grey, there is one channel; otherwise all images are converted to RGB.
    Transparency is dropped. Images that are not square are cropped to their largest central square,
    unless the protocol sets ``center_crop``.
    """

    licence = OWN_LICENCE
    dark = True

    def __init__(self, name: str, path: Path, variant: Variant = "complete") -> None:
        super().__init__(path)
        self.name = name
        self.source = f"local folder {path}"
        self._variant = variant

    def missing(self) -> str | None:
        """Return the path that was looked for, or None if the folder exists."""
        return None if self.root.is_dir() else f"looked for the folder {self.root}"

    def fetch(self) -> None:
        """Check the images; nothing can be downloaded.

        Raises:
            DataUnavailableError: if images are missing or unreadable.
        """
        self.info()

    def info(self) -> DatasetInfo:
        """Describe the images; this reads every file."""
        train, test = self._splits()
        drawn = "" if self._is_split() else f", split 80/20 at random with seed {SEED}"
        return DatasetInfo(
            name=self.name,
            shape=(1 if _common_mode(train.paths + test.paths) == "L" else 3, None, None),
            train_size=len(train.paths),
            test_size=len(test.paths),
            source=self.source + drawn,
            licence=self.licence,
            fingerprint=fingerprint_files(
                (path.relative_to(self.root).as_posix(), path) for path in train.paths + test.paths
            ),
            variant=self._variant,
        )

    def load(self, protocol: Protocol) -> ImageData:
        """Load both splits: draw the protocol's subset, then decode, crop and resize each image."""
        train, test = self._splits()
        mode = _common_mode(train.paths + test.paths)
        return ImageData(
            train=_decoded(train, protocol.train_images, mode, protocol),
            test=_decoded(test, protocol.test_images, mode, protocol),
        )

    def _is_split(self) -> bool:
        return (self.root / "train").is_dir() or (self.root / "test").is_dir()

    def _splits(self) -> tuple[Listing, Listing]:
        require_here(self)
        if not self._is_split():
            return _split_at_random(_list(self.root))
        train, test = _list(self.root / "train"), _list(self.root / "test")
        if train.classes != test.classes:
            raise DataUnavailableError(
                f"{self.root} has the classes {train.classes} in train and {test.classes} in test: "
                "expected the same in both."
            )
        return train, test


def _list(folder: Path) -> Listing:
    """List the images of a folder, sorted by name.

    Raises:
        DataUnavailableError: if there are no images, or only some lie in class subfolders.
    """
    if not folder.is_dir():
        raise DataUnavailableError(
            f"{folder} does not exist: expected both train and test, or neither."
        )
    files = (path for path in folder.rglob("*") if path.suffix.lower() in _readable_suffixes())
    names = sorted(
        (path.relative_to(folder) for path in files if path.is_file()), key=Path.as_posix
    )
    names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    if not names:
        raise DataUnavailableError(
            f"{folder} holds no images: expected PNG, JPEG or another format of PIL."
        )
    nested = [len(name.parts) > 1 for name in names]
    if any(nested) and not all(nested):
        raise DataUnavailableError(
            f"{folder} holds images both in subfolders ({names[nested.index(True)]}) and outside "
            f"of them ({names[nested.index(False)]}): move all into subfolders, or none."
        )
    paths = [folder / name for name in names]
    if not all(nested):
        return Listing(paths, [], None)
    classes, labels = np.unique([name.parts[0] for name in names], return_inverse=True)
    return Listing(paths, classes.tolist(), labels.astype(np.int64))


def _split_at_random(listing: Listing) -> tuple[Listing, Listing]:
    size = len(listing.paths)
    if size < 2:
        raise DataUnavailableError(
            f"{listing.paths[0]} is the only image: expected one for training, one for testing."
        )
    test = draw(size, max(1, round(size * TEST_FRACTION)))
    train = np.setdiff1d(np.arange(size), test)
    return listing.take(train), listing.take(test)


def _common_mode(paths: Iterable[Path]) -> str:
    """Return ``L`` if every image is grey, else ``RGB``."""
    modes = {_mode(path) for path in paths}
    return "L" if modes <= GREY_MODES else "RGB"


def _mode(path: Path) -> str:
    with open_image(path) as image:
        mode = image.mode
    if mode not in GREY_MODES | COLOUR_MODES:
        raise DataUnavailableError(
            f"{path} has PIL's mode {mode}: expected 8 bits per channel, grey or colour."
        )
    return mode


def _decoded(listing: Listing, limit: int | None, mode: str, protocol: Protocol) -> Split:
    drawn = listing.take(draw(len(listing.paths), limit))
    return Split(prepare_files(drawn.paths, mode, protocol), drawn.labels)


@cache
def _readable_suffixes() -> frozenset[str]:
    suffixes = Image.registered_extensions().items()
    return frozenset(suffix for suffix, kind in suffixes if kind in Image.OPEN)
