"""Images of the user in a folder, with or without a subfolder per class."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.datasets.arrays import OWN_LICENCE
from bench.datasets.dataset import Dataset, DatasetInfo, ImageData, Split, Variant
from bench.datasets.image_files import (
    DEEP_GREY_MODES,
    GREY_MODES,
    UPRIGHT,
    Header,
    decode,
    decode_range,
    read_header,
    require_known_range,
)
from bench.datasets.image_listing import LeftOut, is_hidden, list_images
from bench.datasets.preprocessing import (
    SEED,
    count_classes,
    draw,
    fingerprint_files,
    prepare_files,
    require_here,
)
from bench.datasets.value_range import LEAST_MAXIMUM, ValueRange, describe_mapping, nearly_black
from bench.errors import DataUnavailableError
from bench.protocol import Protocol

TEST_FRACTION = 0.2
SPLITS = ("train", "test")
OUTSIDE = "outside of train and test"


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
    """Images of any size in a folder, in any format that PIL reads.

    The folder contains subfolders ``train`` and ``test``; otherwise 20 % of its images are drawn
    for testing, with a fixed seed. Each split contains images, or one subfolder of images per
    class. A label is the index of the class in alphabetical order. Links are followed. Hidden
    files, folders of the system, and files without the suffix of an image format are left out, and
    listed in the notes. Images are turned as their EXIF orientation says.

    Values are 8 bits per channel that fill 0..255. Images with another range of values, such as
    16-bit images, need a ``value_range``, which is mapped to 0..255.

    If every image is grey, there is one channel; otherwise all images are converted to RGB.
    Transparency is dropped. Images that are not square are cropped to their largest central square,
    unless the protocol sets ``center_crop``.
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
        super().__init__(path)
        self.name = name
        self.source = f"local folder {path}"
        self._variant = variant
        self._range = value_range

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
        left_out = LeftOut()
        train, test = self._splits(left_out)
        paths = train.paths + test.paths
        headers = {path: self._header(path) for path in paths}
        mode = _common_mode(headers)
        self._check_values(paths, mode)
        source = self.source
        if not self._is_split():
            source += f", split 80/20 at random with seed {SEED}"
        return DatasetInfo(
            name=self.name,
            shape=(1 if mode == "L" else 3, None, None),
            train_size=len(train.paths),
            test_size=len(test.paths),
            source=f"{source}{describe_mapping(self._range)}",
            licence=self.licence,
            fingerprint=self._fingerprint(headers),
            variant=self._variant,
            class_counts=count_classes(train.labels, test.labels),
            notes=(f"Left out of {self.root}: {left_out}.",) if left_out else (),
        )

    def load(self, protocol: Protocol) -> ImageData:
        """Load both splits: draw the protocol's subset, then decode, crop and resize each image."""
        train, test = self._splits(LeftOut())
        mode = _common_mode({path: self._header(path) for path in train.paths + test.paths})
        return ImageData(
            train=self._decoded(train, protocol.train_images, mode, protocol),
            test=self._decoded(test, protocol.test_images, mode, protocol),
        )

    def _header(self, path: Path) -> Header:
        header = read_header(path)
        if self._range is None:
            require_known_range(path, header)
        return header

    def _check_values(self, paths: list[Path], mode: str) -> None:
        """Check that values lie in the range, or that they fill 0..255 if there is none.

        Raises:
            DataUnavailableError: if they do not.
        """
        if self._range is not None:
            for path in paths:
                decode_range(path, mode, self._range)
            return
        lowest, highest = 255, 0
        for path in paths:
            pixels = np.asarray(decode(path, mode))
            lowest, highest = min(lowest, pixels.min()), max(highest, pixels.max())
            if highest >= LEAST_MAXIMUM:
                return
        raise DataUnavailableError(f"{self.root} holds {nearly_black(lowest, highest)}.")

    def _fingerprint(self, headers: Mapping[Path, Header]) -> str:
        """Hash names, bytes and whatever else the pixels depend on."""
        named = [(path.relative_to(self.root).as_posix(), path) for path in headers]
        files = fingerprint_files(named)
        turned = [name for name, path in named if headers[path].orientation != UPRIGHT]
        if not turned and self._range is None:
            return files
        content = json.dumps([files, turned, self._range and list(map(float, self._range))])
        return hashlib.sha256(content.encode()).hexdigest()

    def _decoded(self, listing: Listing, limit: int | None, mode: str, protocol: Protocol) -> Split:
        drawn = listing.take(draw(len(listing.paths), limit))
        return Split(prepare_files(drawn.paths, mode, protocol, self._range), drawn.labels)

    def _is_split(self) -> bool:
        return any((self.root / split).is_dir() for split in SPLITS)

    def _splits(self, left_out: LeftOut) -> tuple[Listing, Listing]:
        """Return the training and the test images.

        Args:
            left_out: receiver of everything that is no image of either split.
        """
        require_here(self)
        if not self._is_split():
            return _split_at_random(_list(self.root, Path(), left_out))
        for path in self.root.iterdir():
            if path.name not in SPLITS:
                left_out.add(is_hidden(path.name) or OUTSIDE, Path(path.name))
        train, test = (_list(self.root, Path(split), left_out) for split in SPLITS)
        if train.classes != test.classes:
            raise DataUnavailableError(
                f"{self.root} has the classes {train.classes} in train and {test.classes} in test: "
                f"expected the same in both{f'; left out are {left_out}' if left_out else ''}."
            )
        return train, test


def _list(root: Path, within: Path, left_out: LeftOut) -> Listing:
    """List the images of a folder, sorted by name.

    Args:
        root: folder of the dataset.
        within: path of the folder to list within the root.
        left_out: receiver of everything that is not an image.

    Raises:
        DataUnavailableError: if there are no images, or only some lie in class subfolders.
    """
    folder = root / within
    if not folder.is_dir():
        raise DataUnavailableError(
            f"{folder} does not exist: expected both train and test, or neither."
        )
    names = list_images(root, within, left_out)
    if not names:
        found = f"; it holds {left_out}" if left_out else ""
        raise DataUnavailableError(
            f"{folder} holds no images: expected PNG, JPEG or another format of PIL{found}."
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


def _common_mode(headers: Mapping[Path, Header]) -> str:
    """Return ``L`` if every image is grey, else ``RGB``."""
    modes = {header.mode for header in headers.values()}
    return "L" if modes <= GREY_MODES | DEEP_GREY_MODES else "RGB"
