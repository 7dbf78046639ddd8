"""A user's own images in a folder, in class subfolders or not."""

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
    """Image files, the class subfolders they lie in (if any), and each file's index in these."""

    paths: list[Path]
    classes: list[str]
    labels: np.ndarray | None

    def take(self, indices: np.ndarray) -> "Listing":
        """These files only, their labels unchanged."""
        labels = None if self.labels is None else self.labels[indices]
        return Listing([self.paths[i] for i in indices], self.classes, labels)


class ImageFolder(Dataset):
    """Images that PIL reads, of any size, 8 bits a channel.

    Either ``train`` and ``test`` below the folder, or the folder alone: then 20 % of its images
    are drawn for testing, with a fixed seed. Each holds images, or one subfolder a class; labels
    are the classes' sorted index. Hidden files and files that are no images by their suffix are
    not looked at. If every image is grey there is one channel, else all are converted to RGB;
    transparency is dropped. Images that are not square are cropped to their largest central
    square, unless the protocol gives a ``center_crop``.
    """

    licence = OWN_LICENCE

    def __init__(self, name: str, path: Path, variant: Variant = "complete") -> None:
        super().__init__(path)
        self.name = name
        self.source = f"local folder {path}"
        self._variant = variant

    def missing(self) -> str | None:
        """None if the folder is there."""
        return None if self.root.is_dir() else f"looked for the folder {self.root}"

    def fetch(self) -> None:
        """Nothing can be fetched: the images are there, or DataUnavailableError."""
        self.info()

    def info(self) -> DatasetInfo:
        """Describe the images that are here; reads each one's bytes and header."""
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
        """Both splits, drawn, decoded one by one, cropped and resized as the protocol says."""
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
            return _drawn_apart(_list(self.root))
        train, test = _list(self.root / "train"), _list(self.root / "test")
        if train.classes != test.classes:
            raise DataUnavailableError(
                f"{self.root} has the classes {train.classes} in train and {test.classes} in test: "
                "expected the same in both."
            )
        return train, test


def _list(folder: Path) -> Listing:
    """The images of a folder in the order of their names.

    Raises:
        DataUnavailableError: there are none, or some in class subfolders and some not.
    """
    if not folder.is_dir():
        raise DataUnavailableError(
            f"{folder} is not there: expected both train and test, or neither."
        )
    files = (path for path in folder.rglob("*") if path.suffix.lower() in _readable_suffixes())
    names = sorted(
        (path.relative_to(folder) for path in files if path.is_file()), key=Path.as_posix
    )
    names = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    if not names:
        raise DataUnavailableError(f"{folder} holds no images: expected PNG, JPEG or the like.")
    nested = [len(name.parts) > 1 for name in names]
    if any(nested) and not all(nested):
        raise DataUnavailableError(
            f"{folder} holds images both in subfolders ({names[nested.index(True)]}) and outside "
            f"of them ({names[nested.index(False)]}): expected the one or the other."
        )
    paths = [folder / name for name in names]
    if not all(nested):
        return Listing(paths, [], None)
    classes, labels = np.unique([name.parts[0] for name in names], return_inverse=True)
    return Listing(paths, classes.tolist(), labels.astype(np.int64))


def _drawn_apart(everything: Listing) -> tuple[Listing, Listing]:
    size = len(everything.paths)
    if size < 2:
        raise DataUnavailableError(
            f"{everything.paths[0]} is the only image: expected at least two, to split."
        )
    test = draw(size, max(1, round(size * TEST_FRACTION)))
    train = np.setdiff1d(np.arange(size), test)
    return everything.take(train), everything.take(test)


def _common_mode(paths: Iterable[Path]) -> str:
    """``L`` if every image is grey, else ``RGB``."""
    modes = {_mode(path) for path in paths}
    return "L" if modes <= GREY_MODES else "RGB"


def _mode(path: Path) -> str:
    with open_image(path) as image:
        mode = image.mode
    if mode not in GREY_MODES | COLOUR_MODES:
        raise DataUnavailableError(
            f"{path} is an image of PIL's mode {mode}: expected 8 bits a channel, grey or colour."
        )
    return mode


def _decoded(listing: Listing, limit: int | None, mode: str, protocol: Protocol) -> Split:
    drawn = listing.take(draw(len(listing.paths), limit))
    return Split(prepare_files(drawn.paths, mode, protocol), drawn.labels)


@cache
def _readable_suffixes() -> frozenset[str]:
    suffixes = Image.registered_extensions().items()
    return frozenset(suffix for suffix, kind in suffixes if kind in Image.OPEN)
