import contextlib
import gzip
import io
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from bench.datasets.torchvision import CIFAR10, MNIST, FashionMNIST
from bench.errors import DataUnavailableError


def extract(dataset):
    for archive in list(dataset.raw.glob("*.gz")):
        archive.with_suffix("").write_bytes(gzip.decompress(archive.read_bytes()))
        archive.unlink()


def test_archives_are_read_and_nothing_is_written(mnist, drawn, protocol, snapshot):
    before = snapshot(mnist.root)
    assert mnist.missing() is None
    mnist.fetch()
    info = mnist.info()
    assert (info.train_size, info.test_size, info.channels) == (6, 4, 1)
    assert info.variant == "subset"
    data = mnist.load(protocol(image_size=28))
    for split, images, labels in ((data.train, *drawn[:2]), (data.test, *drawn[2:])):
        np.testing.assert_array_equal(split.images[:, 0], images)
        np.testing.assert_array_equal(split.labels, labels)
    assert snapshot(mnist.root) == before


def test_extracted_files_give_the_same(mnist):
    before = mnist.info()
    extract(mnist)
    assert mnist.missing() is None
    assert mnist.info() == before


def test_archives_and_extracted_files_mixed(mnist):
    before = mnist.info()
    archive = mnist.raw / "t10k-images-idx3-ubyte.gz"
    archive.with_suffix("").write_bytes(gzip.decompress(archive.read_bytes()))
    archive.unlink()
    assert mnist.info() == before


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty"])
def test_a_corrupt_archive_is_named_and_left_alone(mnist, protocol, damage, snapshot):
    victim = mnist.raw / "t10k-labels-idx1-ubyte.gz"
    content = victim.read_bytes()
    changed = content[:-1] + bytes([content[-1] ^ 1])
    victim.write_bytes({"truncated": content[:-20], "changed": changed, "empty": b""}[damage])
    before = snapshot(mnist.root)
    for use in (mnist.info, mnist.fetch, lambda: mnist.load(protocol())):
        with pytest.raises(DataUnavailableError, match="corrupt or truncated") as caught:
            use()
        assert str(victim) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "delete it and fetch 'mnist' again" in str(caught.value)
    assert snapshot(mnist.root) == before


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("train-images-idx3-ubyte", lambda c: c[:-1], r"4719 bytes, expected 4720"),
        ("train-images-idx3-ubyte", lambda c: c + b"\0", r"4721 bytes, expected 4720"),
        ("train-labels-idx1-ubyte", lambda c: c[:6], r"no IDX header"),
        ("t10k-labels-idx1-ubyte", lambda c: b"", r"no IDX header"),
        ("t10k-images-idx3-ubyte", lambda c: b"\0\0\x0d" + c[3:], r"no IDX header of 3 axes"),
        ("t10k-images-idx3-ubyte", lambda c: c[:-1] + bytes([c[-1] ^ 1]), r"its MD5 is not"),
        (
            "t10k-labels-idx1-ubyte",
            lambda c: bytes([0, 0, 8, 1, 0, 0, 0, 3]) + bytes(3),
            r"or not of mnist: its MD5 is not",
        ),
    ],
)
def test_a_damaged_extracted_file_is_named(mnist, file, damage, message):
    extract(mnist)
    path = mnist.raw / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataUnavailableError, match=message) as caught:
        mnist.info()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_extracted_file_of_another_dataset_does_not_hide_the_archive(mnist, snapshot):
    expected = mnist.info()
    for archive in mnist.raw.glob("*.gz"):
        content = gzip.decompress(archive.read_bytes())
        archive.with_suffix("").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    before = snapshot(mnist.root)
    assert mnist.info() == expected
    assert snapshot(mnist.root) == before


def test_real_extracted_files_are_verified(tmp_path, real_data):
    """Fashion-MNIST's files have the names and sizes of MNIST's."""
    for source in (MNIST, FashionMNIST):
        raw = tmp_path / source.torchvision_name / "raw"
        raw.mkdir(parents=True)
        for archive in (real_data / source.torchvision_name / "raw").glob("*.gz"):
            (raw / archive.stem).write_bytes(gzip.decompress(archive.read_bytes()))
        assert source(tmp_path).info().variant == "complete"
    shutil.rmtree(tmp_path / "MNIST")
    (tmp_path / "FashionMNIST").rename(tmp_path / "MNIST")
    with pytest.raises(DataUnavailableError, match=r"raw/train-images.* \(or not of mnist: "):
        MNIST(tmp_path).info()


def test_a_root_that_cannot_be_read_is_told(mnist, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", "train-images")

    monkeypatch.setattr("torchvision.datasets.utils.extract_archive", refuse)
    with pytest.raises(DataUnavailableError, match=r"'mnist' cannot be read: .*Permission denied"):
        mnist.info()


@pytest.mark.parametrize("source", [MNIST, FashionMNIST])
def test_the_real_archives_are_loaded_as_torchvision_and_pil_do(
    tmp_path, real_data, protocol, source
):
    folder = source.torchvision_name
    for root in ("ours", "theirs"):
        shutil.copytree(real_data / folder, tmp_path / root / folder)
    dataset = source(tmp_path / "ours")
    info = dataset.info()
    assert (info.train_size, info.test_size, info.variant) == (60_000, 10_000, "complete")
    data = dataset.load(protocol(image_size=32, train_images=300, test_images=200))
    for split, train in ((data.train, True), (data.test, False)):
        with contextlib.redirect_stdout(io.StringIO()):
            expected = dataset.torchvision()(tmp_path / "theirs", train=train, download=True)
        size = len(expected)
        drawn = np.sort(np.random.RandomState(0).permutation(size)[: 300 if train else 200])
        assert split.labels.tolist() == expected.targets[drawn].tolist()
        for image, index in zip(split.images, drawn, strict=True):
            resized = expected[index][0].resize((32, 32), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(image[0], np.asarray(resized))


def test_real_mnist_with_one_flipped_bit(tmp_path, real_data):
    shutil.copytree(real_data / "MNIST", tmp_path / "MNIST")
    victim = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 4
    victim.chmod(0o644)
    victim.write_bytes(content)
    with pytest.raises(DataUnavailableError, match=r"train-images-idx3-ubyte\.gz is corrupt"):
        MNIST(tmp_path).info()


class Bomb:
    """A pickle that leaves a file behind when it is opened."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


def test_cifar_batches(cifar, protocol, snapshot):
    before = snapshot(cifar.root)
    info = cifar.info()
    assert (info.train_size, info.test_size) == (15, 3)
    assert (info.channels, info.variant) == (3, "subset")
    data = cifar.load(protocol(image_size=32))
    assert data.train.labels.tolist() == np.repeat(np.arange(5), 3).tolist()
    assert data.test.labels.tolist() == [5, 5, 5]
    batch = pickle.loads((cifar.root / "cifar-10-batches-py" / "test_batch").read_bytes())
    np.testing.assert_array_equal(data.test.images.reshape(3, -1), batch["data"])
    assert snapshot(cifar.root) == before


def test_cifar_archive_gives_the_same_and_nothing_is_written(cifar, snapshot, pack_cifar):
    unpacked = cifar.info()
    pack_cifar()
    before = snapshot(cifar.root)
    assert cifar.missing() is None
    assert cifar.info() == unpacked
    assert snapshot(cifar.root) == before


def test_a_changed_cifar_batch_does_not_hide_the_archive(cifar, pack_cifar, tmp_path):
    expected = cifar.info()
    folder = cifar.root / "cifar-10-batches-py"
    shutil.copytree(folder, tmp_path / "kept")
    pack_cifar()
    shutil.move(tmp_path / "kept", folder)
    (folder / "test_batch").write_bytes((folder / "data_batch_1").read_bytes())
    assert cifar.info() == expected


def test_a_truncated_cifar_archive_is_named(cifar, pack_cifar):
    archive = pack_cifar()
    archive.write_bytes(archive.read_bytes()[:-10])
    with pytest.raises(DataUnavailableError, match=r"cifar-10-python\.tar\.gz is corrupt"):
        cifar.info()


@pytest.mark.parametrize("file", CIFAR10.files)
def test_a_changed_cifar_batch_is_named_and_nothing_is_unpickled(
    cifar, tmp_path, file, monkeypatch
):
    trace = tmp_path / "unpickled"
    victim = cifar.root / "cifar-10-batches-py" / file
    victim.write_bytes(pickle.dumps(Bomb(trace)))

    def refuse(*args, **kwargs):
        raise AssertionError("a batch was unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    with pytest.raises(DataUnavailableError, match="is corrupt or truncated") as caught:
        cifar.info()
    assert str(victim) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


def test_cifar_without_a_batch_is_missing(cifar):
    (cifar.root / "cifar-10-batches-py" / "data_batch_3").unlink()
    assert "cifar-10-python.tar.gz" in cifar.missing()
