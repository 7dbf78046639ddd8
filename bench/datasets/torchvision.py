"""MNIST, Fashion-MNIST, CIFAR-10 and CelebA, downloaded, verified and read with torchvision."""

import hashlib
import importlib.util
import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import PIL

from bench.datasets.data_cache import Arrays, cached
from bench.datasets.dataset import DatasetInfo, ImageData, Split, Variant
from bench.datasets.downloads import TorchvisionDataset
from bench.datasets.preprocessing import (
    InMemoryDataset,
    draw,
    fingerprint_files,
    prepare_files,
    require_here,
)
from bench.errors import DataUnavailableError
from bench.protocol import Protocol
from bench.system.network import confidential


class MNIST(TorchvisionDataset, InMemoryDataset):
    """MNIST: 60,000 + 10,000 grey 28x28 handwritten digits (LeCun, Cortes, Burges).

    Attributes:
        files: MD5s of the extracted files by name: images and labels, for training and testing.
        more_mirrors: URLs to download from in addition to torchvision's mirrors.
    """

    name = "mnist"
    source = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/: LeCun, Bottou, Bengio and Haffner (1998), "
        "Gradient-based learning applied to document recognition"
    )
    licence = "CC BY-SA 3.0 (as commonly stated)"
    torchvision_name = "MNIST"
    files: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }
    by_hand = "MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz"

    more_mirrors: ClassVar[tuple[str, ...]] = ()

    @property
    def raw(self) -> Path:
        """Folder of the ``.gz`` or extracted files."""
        return self.root / self.torchvision_name / "raw"

    def missing(self) -> str | None:
        """Return the first file that exists neither as ``.gz`` nor extracted, or None."""
        for file in self.files:
            if not (self.raw / file).exists() and not (self.raw / f"{file}.gz").exists():
                return f"looked for {file}.gz, or {file} extracted, in {self.raw}"
        return None

    def downloads(self) -> list[tuple[str, str]]:
        """Return the path under the root and the MD5 of the four ``.gz`` files."""
        raw = self.raw.relative_to(self.root)
        return [(str(raw / file), md5) for file, md5 in self.torchvision().resources]

    def download(self, folder: Path) -> None:
        """Download from the mirrors whose connection is encrypted."""
        source = self.torchvision()
        mirrors = [url for url in (*source.mirrors, *self.more_mirrors) if confidential(url)]
        # Torchvision puts the files into a folder with the class's name.
        type(source.__name__, (source,), {"mirrors": mirrors})(folder, download=True)

    def read(self) -> tuple[Split, Split]:
        """Return both splits, with images ``(N, 28, 28)`` uint8 and labels ``(N,)`` in 0..9."""
        from torchvision.datasets.mnist import read_image_file, read_label_file

        require_here(self)
        with tempfile.TemporaryDirectory() as folder:
            paths = [self._extracted(file, Path(folder)) for file in self.files]
            train_images, test_images = (read_image_file(path).numpy() for path in paths[::2])
            train_labels, test_labels = (read_label_file(path).numpy() for path in paths[1::2])
        return Split(train_images, train_labels), Split(test_images, test_labels)

    def _extracted(self, file: str, folder: Path) -> Path:
        """Return the extracted file under the root, or extract the archive into ``folder``.

        Several datasets use the same names, so an extracted file with another content is passed
        over if the archive exists.

        Raises:
            DataUnavailableError: if the file, or else the archive, has another MD5.
        """
        from torchvision.datasets.utils import check_integrity, extract_archive

        path, archive = self.raw / file, self.raw / f"{file}.gz"
        if check_integrity(path, self.files[file]):
            return path
        if not archive.exists():
            self._check_size(path)
            self.verify(path, self.files[file])
        self.verify(archive, dict(self.torchvision().resources)[archive.name])
        return extract_archive(archive, folder)

    def _check_size(self, path: Path) -> None:
        """Compare a file's size with its IDX header.

        The header is two zero bytes, the type (8 for uint8), the number of axes, and the length of
        each axis as big-endian uint32.
        """
        axes = int(path.name.split("idx")[1][0])
        with path.open("rb") as file:
            header = file.read(4 + 4 * axes)
        if header[:4] != bytes([0, 0, 8, axes]) or len(header) < 4 + 4 * axes:
            raise self.damaged(path, f"no IDX header of {axes} axes of uint8")
        shape = np.frombuffer(header, ">u4", offset=4).tolist()
        expected, actual = len(header) + math.prod(shape), path.stat().st_size
        if actual != expected:
            raise self.damaged(path, f"{actual} bytes, expected {expected}")

    def variant(self, train: Split, test: Split) -> Variant:
        """Return ``complete`` for the official 60,000 + 10,000 images, else ``subset``."""
        return "complete" if (len(train), len(test)) == (60_000, 10_000) else "subset"


class FashionMNIST(MNIST):
    """Fashion-MNIST: 60,000 + 10,000 grey 28x28 pictures of clothes (Zalando Research)."""

    name = "fashion_mnist"
    source = (
        "https://github.com/zalandoresearch/fashion-mnist: Xiao, Rasul and Vollgraf (2017), "
        "arXiv:1708.07747"
    )
    licence = "MIT, Zalando SE"
    torchvision_name = "FashionMNIST"
    files: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    }
    # Torchvision's only mirror does not use HTTPS.
    more_mirrors = ("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",)
    by_hand = "FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz"


class CIFAR10(TorchvisionDataset, InMemoryDataset):
    """CIFAR-10: 50,000 + 10,000 RGB 32x32 photographs of ten classes (Krizhevsky, 2009).

    Attributes:
        archive: name of the archive.
        files: names of the unpacked files.
    """

    name = "cifar10"
    source = (
        "https://www.cs.toronto.edu/~kriz/cifar.html: Krizhevsky (2009), "
        "Learning Multiple Layers of Features from Tiny Images"
    )
    licence = "none stated by its authors; research use, cite Krizhevsky (2009)"
    torchvision_name = "CIFAR10"
    archive = "cifar-10-python.tar.gz"
    files = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
    by_hand = archive

    def missing(self) -> str | None:
        """Return the archive that was looked for, or None if it or every unpacked batch exists."""
        if (self.root / self.archive).exists() or self._is_unpacked():
            return None
        return f"looked for {self.archive}, or cifar-10-batches-py/ unpacked, in {self.root}"

    def _is_unpacked(self) -> bool:
        folder = self.root / "cifar-10-batches-py"
        return all((folder / file).exists() for file in self.files)

    def downloads(self) -> list[tuple[str, str]]:
        """Return the path under the root and the MD5 of the archive."""
        return [(self.archive, self.torchvision().tgz_md5)]

    def read(self) -> tuple[Split, Split]:
        """Return both splits, with images ``(N, 32, 32, 3)`` uint8 and labels ``(N,)`` in 0..9."""
        require_here(self)
        if self._is_unpacked():
            try:
                return self._read_batches(self.root)
            except DataUnavailableError:
                if not (self.root / self.archive).exists():
                    raise
        self.verify(self.root / self.archive, self.torchvision().tgz_md5)
        with tempfile.TemporaryDirectory() as folder:
            # Before 0.29.2, torchvision's own function lets an archive write outside the folder.
            shutil.unpack_archive(self.root / self.archive, folder, filter="data")
            return self._read_batches(Path(folder))

    def _read_batches(self, root: Path) -> tuple[Split, Split]:
        source = self.torchvision()
        batches = [*source.train_list, *source.test_list]
        # The files are pickles, so every MD5 is checked before the first file is opened.
        for file, md5 in [*batches, (source.meta["filename"], source.meta["md5"])]:
            self.verify(root / source.base_folder / file, md5)
        train, test = (source(root, train=train) for train in (True, False))
        return (
            Split(np.ascontiguousarray(train.data), np.array(train.targets, np.int64)),
            Split(np.ascontiguousarray(test.data), np.array(test.targets, np.int64)),
        )

    def variant(self, train: Split, test: Split) -> Variant:
        """Return ``complete`` for the official 50,000 + 10,000 images, else ``subset``."""
        return "complete" if (len(train), len(test)) == (50_000, 10_000) else "subset"


class CelebA(TorchvisionDataset):
    """CelebA: 162,770 + 19,962 RGB 178x218 photographs of celebrities' faces (aligned, cropped).

    The validation images are read only for a protocol whose ``official_fid_split`` names them.
    Images are decoded one by one; the preprocessed images are cached in ``.bench-cache`` under the
    root if the root can be written.
    """

    name = "celeba"
    source = (
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html: Liu, Luo, Wang and Tang (2015), "
        "Deep Learning Face Attributes in the Wild"
    )
    licence = "non-commercial research only, under its authors' agreement; not to be redistributed"
    torchvision_name = "CelebA"
    by_hand = (
        "celeba/img_align_celeba/*.jpg and celeba/list_eval_partition.txt (from its authors' page; "
        "the agreement forbids redistribution)"
    )

    @property
    def folder(self) -> Path:
        """Folder of the images and lists."""
        return self.root / "celeba"

    @property
    def partition(self) -> Path:
        """Path of the list that assigns each image to a split."""
        return self.folder / "list_eval_partition.txt"

    def missing(self) -> str | None:
        """Return the paths that were looked for, or None if the list and the image folder exist."""
        if self.partition.exists() and (self.folder / "img_align_celeba").is_dir():
            return None
        return (
            "looked for list_eval_partition.txt and the unpacked folder img_align_celeba in "
            f"{self.folder}"
        )

    def downloads(self) -> list[tuple[str, str]]:
        """Return the path under the root and the MD5 of the image archive and of the five lists."""
        return [(f"celeba/{file}", md5) for _, md5, file in self.torchvision().file_list]

    def download(self, folder: Path) -> None:
        """Download from Google Drive with the package gdown.

        Raises:
            ModuleNotFoundError: if gdown is not installed.
        """
        if importlib.util.find_spec("gdown") is None:
            raise ModuleNotFoundError(
                'the package gdown is missing (pip install "spikegen-bench[celeba]")'
            )
        super().download(folder)

    def info(self) -> DatasetInfo:
        """Describe the dataset; this reads every file."""
        train, _, test = self._paths()
        return DatasetInfo(
            name=self.name,
            shape=(3, 218, 178),
            train_size=len(train),
            test_size=len(test),
            source=self.source,
            licence=self.licence,
            fingerprint=self._fingerprint(train + test),
            variant=self._variant(),
        )

    def load(self, protocol: Protocol) -> ImageData:
        """Load the splits without labels: draw the protocol's subset, then crop and resize.

        All validation images are loaded, if any: a subset is drawn of the other splits only.
        """
        train, validation, test = self._paths()
        paths = {
            "train": [train[i] for i in draw(len(train), protocol.train_images)],
            "test": [test[i] for i in draw(len(test), protocol.test_images)],
        }
        used = train + test
        if protocol.official_fid_split == "validation" and validation:
            paths["validation"] = validation
            used = used + validation

        def build() -> Arrays:
            return {name: prepare_files(of, "RGB", protocol) for name, of in paths.items()}

        arrays = cached(self._cache(self._fingerprint(used), protocol), paths, build)
        return ImageData(**{name: Split(images, None) for name, images in arrays.items()})

    def _paths(self) -> tuple[list[Path], list[Path], list[Path]]:
        """Return the images of the splits 0 (train), 1 (validation) and 2 (test), as listed."""
        require_here(self)
        images: dict[str, list[Path]] = {"0": [], "1": [], "2": []}
        for line in self._partition_lines():
            name, _, split = line.partition(" ")
            if split not in images:
                raise self.damaged(
                    self.partition, f"the line {line!r} is not a file name and 0, 1 or 2"
                )
            images[split].append(self.folder / "img_align_celeba" / name)
        if not images["0"] or not images["2"]:
            raise self.damaged(self.partition, "it lists no train (0) or no test (2) images")
        return images["0"], images["1"], images["2"]

    def _partition_lines(self) -> list[str]:
        """Return the lines of the partition list with one space each, as in the official list.

        An editor may have added a byte order mark, blank lines, tabs or other line ends.
        """
        try:
            text = self.partition.read_text(encoding="utf-8-sig", errors="replace")
        except OSError as error:
            raise DataUnavailableError(f"{self.partition} cannot be read: {error}.") from error
        return [" ".join(line.split()) for line in text.splitlines() if line.strip()]

    def _partition_content(self) -> bytes:
        return "".join(f"{line}\n" for line in self._partition_lines()).encode()

    def _fingerprint(self, images: list[Path]) -> str:
        files = [(path.name, path) for path in images]
        return fingerprint_files([(self.partition.name, self._partition_content()), *files])

    def _variant(self) -> Variant:
        """Return ``complete`` if the partition list is the official one, else ``subset``.

        The fingerprint has read every image of the list, so none is missing.
        """
        official = dict(self.downloads())["celeba/list_eval_partition.txt"]
        md5 = hashlib.md5(self._partition_content(), usedforsecurity=False).hexdigest()
        return "complete" if md5 == official else "subset"

    def _cache(self, fingerprint: str, protocol: Protocol) -> Path:
        names = ("center_crop", "image_size", "interpolation", "train_images", "test_images")
        key = [fingerprint, PIL.__version__, *(getattr(protocol, name) for name in names)]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        return self.root / ".bench-cache" / f"celeba-{digest}.npz"
