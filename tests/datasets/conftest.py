"""What the dataset tests share."""

import gzip
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision
from drawn import idx, md5

from bench.datasets.torchvision import CIFAR10, MNIST
from bench.protocol import Protocol

MakeProtocol = Callable[..., Protocol]


@pytest.fixture(scope="session")
def protocol() -> MakeProtocol:
    """A protocol of which only the images matter, for example ``protocol(image_size=16)``."""

    def make(**values: object) -> Protocol:
        needed = {
            "name": "images",
            "time_steps": 1,
            "latent_size": 1,
            "epochs": 1,
            "batch_size": 1,
            "learning_rate": 0.1,
        }
        return Protocol.model_validate(needed | values)

    return make


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def drawn(rng):
    """A small MNIST: train images and labels, test images and labels, all uint8."""
    return [
        rng.integers(0, 256, (6, 28, 28), dtype=np.uint8),
        np.arange(6, dtype=np.uint8),
        rng.integers(0, 256, (4, 28, 28), dtype=np.uint8),
        np.arange(4, dtype=np.uint8),
    ]


@pytest.fixture
def archives(drawn, monkeypatch):
    """The drawn MNIST as ``.gz`` files by name, whose MD5s are the known ones."""
    content = {
        f"{file}.gz": gzip.compress(idx(array))
        for file, array in zip(MNIST.files, drawn, strict=True)
    }
    resources = [(name, md5(data)) for name, data in content.items()]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    sums = {file: md5(idx(array)) for file, array in zip(MNIST.files, drawn, strict=True)}
    monkeypatch.setattr(MNIST, "files", sums)
    return content


@pytest.fixture
def mnist(tmp_path, archives):
    """MNIST over a root that holds the drawn ``.gz`` files."""
    dataset = MNIST(tmp_path / "root")
    dataset.raw.mkdir(parents=True)
    for name, content in archives.items():
        (dataset.raw / name).write_bytes(content)
    return dataset


@pytest.fixture
def cifar(tmp_path, rng, monkeypatch):
    """CIFAR-10 unpacked, three images a batch, of which torchvision knows the MD5s."""
    folder = tmp_path / "root" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    sums = {}
    for number, file in enumerate(CIFAR10.files):
        data = rng.integers(0, 256, (3, 3072), dtype=np.uint8)
        entry = {"data": data, "labels": [number] * 3, "label_names": ["cat"]}
        content = pickle.dumps(entry)
        (folder / file).write_bytes(content)
        sums[file] = md5(content)
    theirs = torchvision.datasets.CIFAR10
    monkeypatch.setattr(theirs, "train_list", [[f, sums[f]] for f in CIFAR10.files[:5]])
    monkeypatch.setattr(theirs, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(theirs, "meta", {**theirs.meta, "md5": sums["batches.meta"]})
    return CIFAR10(tmp_path / "root")


@pytest.fixture
def pack_cifar(cifar, monkeypatch):
    """Replaces the unpacked folder by the archive, and returns the archive."""

    def pack() -> Path:
        folder, archive = cifar.root / "cifar-10-batches-py", cifar.root / CIFAR10.archive
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(folder, folder.name)
        shutil.rmtree(folder)
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", md5(archive.read_bytes()))
        return archive

    return pack


@pytest.fixture
def snapshot():
    """Every path below a folder, with its content and time of change."""

    def take(folder: Path) -> dict[Path, object]:
        return {
            path: (path.is_file() and path.read_bytes(), path.stat().st_mtime_ns)
            for path in folder.rglob("*")
        }

    return take
