import numpy as np
import pytest
from PIL import Image

from bench.datasets.arrays import ArrayFile
from bench.datasets.digits import Digits
from bench.datasets.folder import ImageFolder
from bench.datasets.resolve import open_dataset
from bench.errors import BenchError, UnknownNameError


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "my own (1).npz"
    images = np.full((2, 8, 8), 255, np.uint8)
    np.savez(path, train_images=images, test_images=images)
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "my.photos"
    path.mkdir()
    for name in "ab":
        Image.new("L", (8, 8), 255).save(path / f"{name}.png")
    return path


def test_a_registered_name(tmp_path):
    dataset = open_dataset("digits", tmp_path)
    assert isinstance(dataset, Digits)
    assert dataset.root == tmp_path


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(UnknownNameError, match=r"'mnits'\. Did you mean: mnist"):
        open_dataset("mnits", tmp_path)


@pytest.mark.parametrize(
    ("pattern", "name", "variant"),
    [
        ("mine={npz}", "mine", "complete"),
        ("mine_2.0-b={folder}", "mine_2.0-b", "complete"),
        ("mnist={npz}", "mnist", "substitute"),
        ("celeba={folder}", "celeba", "substitute"),
        ("npz:{npz}", "my-own-1-", "complete"),
        ("folder:{folder}", "my.photos", "complete"),
    ],
)
def test_own_files(tmp_path, npz, folder, pattern, name, variant):
    dataset = open_dataset(pattern.format(npz=npz, folder=folder), tmp_path)
    assert isinstance(dataset, ArrayFile if "npz}" in pattern else ImageFolder)
    info = dataset.info()
    assert (info.name, info.variant) == (name, variant)


def test_a_file_called_like_a_registered_dataset_is_its_substitute(tmp_path, npz):
    assert open_dataset(f"npz:{npz.rename(tmp_path / 'mnist.npz')}", tmp_path).info().variant == (
        "substitute"
    )


def test_a_path_with_the_other_syntaxs_sign(tmp_path, npz):
    odd = npz.rename(tmp_path / "a=b.npz")
    assert open_dataset(f"npz:{odd}", tmp_path).name == "a-b"
    assert open_dataset(f"name={odd}", tmp_path).info().train_size == 2


def test_paths_are_seen_from_where_the_user_is(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert open_dataset("folder:.", tmp_path).name == "my.photos"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_dataset("x=~/my.photos", tmp_path).info().train_size == 1


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("x={root}/gone.npz", "does not exist"),
        ("npz:{root}/gone.npz", "does not exist"),
        ("mnist=", "does not exist"),
        ("npz:", "does not exist"),
        ("npz:{folder}", "is not a .npz file; use folder:"),
        ("folder:{npz}", "is not a folder; use npz:"),
        ("{npz}", "is a path: use npz:"),
        ("{folder}", "is a path: use folder:"),
        ("{root}/gone.npz", "neither a registered name nor an existing path"),
        ("a b={npz}", "the name 'a b' cannot be used"),
        ("={npz}", "the name '' cannot be used"),
        ("../x={npz}", "the name '../x' cannot be used"),
        ("folder:/", "the name '' cannot be used"),
    ],
)
def test_what_cannot_be_opened(tmp_path, npz, folder, pattern, message):
    with pytest.raises(BenchError, match=message) as caught:
        open_dataset(pattern.format(root=tmp_path, npz=npz, folder=folder), tmp_path)
    assert "\n" not in str(caught.value)
