import gzip
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
import torchvision

from bench.datasets import downloads
from bench.datasets.torchvision import CIFAR10, MNIST, CelebA, FashionMNIST
from bench.errors import DataUnavailableError

ALL = (MNIST, FashionMNIST, CIFAR10, CelebA)


@pytest.fixture
def remote(served, archives, monkeypatch):
    """The folder of a server of the drawn MNIST, which is torchvision's only mirror."""
    folder, address = served
    for name, content in archives.items():
        (folder / name).write_bytes(content)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
    return folder


def test_fetch_downloads_into_a_new_root(tmp_path, remote, drawn, capsys, monkeypatch):
    quiet = torchvision.datasets.MNIST.download

    def chatter(dataset):
        print("Downloading")
        quiet(dataset)

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", chatter)
    dataset = MNIST(tmp_path / "new" / "root")
    assert "train-images-idx3-ubyte.gz" in dataset.missing()
    assert str(dataset.raw) in dataset.missing()
    timeout = socket.getdefaulttimeout()
    dataset.fetch()
    assert socket.getdefaulttimeout() == timeout
    assert dataset.missing() is None
    np.testing.assert_array_equal(dataset.read()[0].images, drawn[0])
    assert sorted(path.name for path in dataset.root.iterdir()) == ["MNIST"]
    assert capsys.readouterr().out == ""


def test_fetch_downloads_only_what_is_missing(mnist, remote):
    (mnist.raw / "t10k-labels-idx1-ubyte.gz").unlink()
    for name in ("train-images", "train-labels", "t10k-images"):
        next(remote.glob(f"{name}*")).unlink()
    mnist.fetch()
    assert mnist.info().test_size == 4


def test_fetch_does_not_replace_a_corrupt_archive(mnist, remote):
    (mnist.raw / "t10k-labels-idx1-ubyte.gz").unlink()
    victim = mnist.raw / "train-labels-idx1-ubyte.gz"
    victim.write_bytes(b"corrupt")
    with pytest.raises(DataUnavailableError, match=r"train-labels-idx1-ubyte\.gz is corrupt"):
        mnist.fetch()
    assert victim.read_bytes() == b"corrupt"


def fails(dataset):
    """Fetch, fail in one line that says the way out, and leave nothing behind."""
    with pytest.raises(DataUnavailableError, match="cannot be downloaded") as caught:
        dataset.fetch()
    assert dataset.by_hand in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(dataset.root) in str(caught.value)
    assert list(dataset.root.iterdir()) == []
    return str(caught.value)


def test_a_download_of_other_content_is_refused(tmp_path, remote):
    (remote / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"other"))
    assert "corrupted" in fails(MNIST(tmp_path / "root"))


def test_a_file_that_the_server_lacks(tmp_path, remote):
    (remote / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "404" in fails(MNIST(tmp_path / "root"))


def test_an_unreachable_server(tmp_path, archives, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
        assert "refused" in fails(MNIST(tmp_path / "root"))


def test_a_server_that_never_answers(tmp_path, archives, monkeypatch):
    monkeypatch.setattr(downloads, "NETWORK_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
        start = time.monotonic()
        assert "timed out" in fails(MNIST(tmp_path / "root"))
        assert time.monotonic() - start < 5


@pytest.mark.parametrize("source", ALL)
def test_a_root_that_cannot_be_made(tmp_path, source):
    (tmp_path / "file").touch()
    with pytest.raises(DataUnavailableError, match=r"data root .*file/root cannot be written") as c:
        source(tmp_path / "file" / "root").fetch()
    assert "choose a writable one" in str(c.value)
    assert "\n" not in str(c.value)


@pytest.mark.parametrize("source", ALL)
def test_a_root_that_cannot_be_written(tmp_path, source, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(DataUnavailableError, match=r"cannot be written \(Read-only file system\)"):
        source(tmp_path).fetch()


@pytest.mark.parametrize("source", ALL)
def test_what_is_missing_is_told(tmp_path, protocol, source):
    dataset = source(tmp_path)
    for use in (dataset.info, lambda: dataset.load(protocol())):
        with pytest.raises(DataUnavailableError) as caught:
            use()
        assert f"{dataset.name!r} is not available: looked for" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert str(tmp_path) in str(caught.value)


def test_listing_imports_no_torch():
    code = (
        "import sys, bench.datasets.resolve; from pathlib import Path;"
        "from bench.datasets.torchvision import CIFAR10, MNIST, CelebA;"
        "[source(Path('none')).missing() for source in (CIFAR10, MNIST, CelebA)];"
        "print({'torch', 'torchvision', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_cifar_is_downloaded_and_unpacked(cifar, served, monkeypatch, tmp_path, pack_cifar):
    folder, address = served
    archive = pack_cifar()
    expected = cifar.info()
    archive.rename(folder / archive.name)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", address + archive.name)
    fresh = CIFAR10(tmp_path / "fresh")
    fresh.fetch()
    assert fresh.info() == expected
    assert sorted(path.name for path in fresh.root.iterdir()) == [
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
    ]


def test_celeba_without_gdown_says_how_to_install_it_and_what_to_place(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    message = fails(CelebA(tmp_path / "root"))
    assert 'pip install "spikegen-bench[celeba]"' in message
    assert "list_eval_partition.txt" in message
    assert "forbids redistribution" in message
