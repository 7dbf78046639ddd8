import hashlib
import shutil

import numpy as np
import pytest
import torchvision
from PIL import Image

from bench.datasets import preprocessing as images
from bench.datasets.torchvision import CelebA
from bench.errors import DataUnavailableError


@pytest.fixture
def celeba(tmp_path, rng):
    """CelebA as it lies on disk: 12 drawn JPEGs, of which 7 train, 2 valid, 3 test."""
    folder = tmp_path / "root" / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    lines = []
    for number, split in enumerate("001022000021", start=1):
        pixels = np.kron(rng.integers(0, 256, (109, 89, 3)), np.ones((2, 2, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "img_align_celeba" / f"{number:06}.jpg")
        lines.append(f"{number:06}.jpg {split}\n")
    (folder / "list_eval_partition.txt").write_text("".join(lines))
    return CelebA(tmp_path / "root")


TRAIN, TEST = [1, 2, 4, 7, 8, 9, 10], [5, 6, 11]


def face(dataset, number, size=64):
    image = Image.open(dataset.folder / "img_align_celeba" / f"{number:06}.jpg")
    cropped = image.crop((15, 35, 163, 183))
    resized = cropped.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized).transpose(2, 0, 1)


def test_celeba_is_cropped_resized_and_split(celeba, protocol):
    assert celeba.missing() is None
    celeba.fetch()
    info = celeba.info()
    assert (info.train_size, info.test_size, info.channels) == (7, 3, 3)
    assert info.variant == "subset"
    data = celeba.load(protocol(image_size=64, center_crop=148))
    for split, numbers in ((data.train, TRAIN), (data.test, TEST)):
        np.testing.assert_array_equal(split.images, [face(celeba, number) for number in numbers])
        assert split.labels is None


def test_celebas_validation_images_are_loaded_where_the_protocol_compares_with_them(
    celeba, protocol
):
    asked = {"image_size": 64, "center_crop": 148}
    assert celeba.load(protocol(**asked)).validation is None
    for _ in range(2):  # decoded, then from the cache
        data = celeba.load(protocol(official_fid_split="validation", **asked))
        expected = [face(celeba, number) for number in (3, 12)]
        np.testing.assert_array_equal(data.validation.images, expected)
        np.testing.assert_array_equal(data.test.images, [face(celeba, number) for number in TEST])


def test_celeba_with_the_official_partition_is_complete(celeba, monkeypatch):
    official = [
        ("id", hashlib.md5(celeba.partition.read_bytes()).hexdigest(), "list_eval_partition.txt")
    ]
    monkeypatch.setattr(torchvision.datasets.CelebA, "file_list", official)
    assert celeba.info().variant == "complete"
    celeba.partition.write_text(celeba.partition.read_text().replace("07.jpg 0", "07.jpg 1"))
    assert celeba.info().variant == "subset"


def test_celebas_fingerprint_sees_partition_and_images(celeba):
    fingerprints = {celeba.info().fingerprint}
    image = celeba.folder / "img_align_celeba" / "000011.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    fingerprints.add(celeba.info().fingerprint)
    celeba.partition.write_text(celeba.partition.read_text().replace("07.jpg 0", "07.jpg 1"))
    fingerprints.add(celeba.info().fingerprint)
    celeba.partition.write_text(celeba.partition.read_text().replace("000012.jpg 1\n", ""))
    fingerprints.add(celeba.info().fingerprint)
    assert len(fingerprints) == 4


@pytest.fixture
def decoded(monkeypatch):
    """The files that were decoded so far."""
    paths = []
    original = images.decode

    def record(path, mode):
        paths.append(path.name)
        return original(path, mode)

    monkeypatch.setattr(images, "decode", record)
    return paths


def test_celebas_prepared_images_are_cached(celeba, protocol, decoded):
    asked = protocol(image_size=64, center_crop=148)
    first = celeba.load(asked)
    assert len(decoded) == 10
    again = celeba.load(asked)
    assert len(decoded) == 10
    np.testing.assert_array_equal(first.train.images, again.train.images)
    np.testing.assert_array_equal(first.test.images, again.test.images)
    assert len(list((celeba.root / ".bench-cache").iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "count"),
    [
        ({"center_crop": 100}, 10),
        ({"image_size": 32}, 10),
        ({"interpolation": "box"}, 10),
        ({"train_images": 2}, 5),
        ({"test_images": 1}, 8),
    ],
)
def test_another_protocol_is_not_answered_from_the_cache(celeba, protocol, decoded, change, count):
    asked = {"image_size": 64, "center_crop": 148}
    celeba.load(protocol(**asked))
    celeba.load(protocol(**(asked | change)))
    assert len(decoded) == 10 + count


def test_other_images_are_not_answered_from_the_cache(celeba, protocol):
    asked = protocol(image_size=64, center_crop=148)
    celeba.load(asked)
    folder = celeba.folder / "img_align_celeba"
    shutil.copyfile(folder / "000003.jpg", folder / "000001.jpg")
    np.testing.assert_array_equal(celeba.load(asked).train.images[0], face(celeba, 3))


@pytest.mark.parametrize("damage", ["truncated", "changed", "text", "empty", "other keys"])
def test_a_corrupt_cache_is_rebuilt(celeba, protocol, damage):
    asked = protocol(image_size=64, center_crop=148)
    expected = celeba.load(asked).train.images
    (cache,) = (celeba.root / ".bench-cache").iterdir()
    content = cache.read_bytes()
    changed = bytearray(content)
    changed[5000] ^= 1
    if damage == "other keys":
        np.savez(cache, other=expected)
    else:
        bad = {"truncated": content[:-100], "changed": changed, "text": b"no", "empty": b""}
        cache.write_bytes(bad[damage])
    np.testing.assert_array_equal(celeba.load(asked).train.images, expected)
    assert cache.read_bytes() != b"no"
    with np.load(cache) as stored:
        np.testing.assert_array_equal(stored["train"], expected)


def test_a_cache_that_cannot_be_written_is_done_without(celeba, protocol):
    (celeba.root / ".bench-cache").touch()
    data = celeba.load(protocol(image_size=64, center_crop=148))
    np.testing.assert_array_equal(data.test.images[0], face(celeba, 5))


def test_a_corrupt_celeba_image_is_named(celeba, protocol):
    victim = celeba.folder / "img_align_celeba" / "000006.jpg"
    victim.write_bytes(victim.read_bytes()[:2000])
    with pytest.raises(DataUnavailableError, match=r"000006\.jpg cannot be read as an image"):
        celeba.load(protocol(image_size=64, center_crop=148))


def test_a_missing_celeba_image_is_named(celeba):
    (celeba.folder / "img_align_celeba" / "000006.jpg").unlink()
    with pytest.raises(DataUnavailableError, match=r"000006\.jpg cannot be read"):
        celeba.info()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("000001.jpg\n", r"the line '000001\.jpg' is not a file name and 0, 1 or 2"),
        ("000001.jpg 3\n", r"000001\.jpg 3"),
        ("000001.jpg 0\n", r"no train \(0\) or no test \(2\)"),
        ("", r"no train \(0\) or no test \(2\)"),
    ],
)
def test_a_bad_partition_list(celeba, content, message):
    celeba.partition.write_text(content)
    with pytest.raises(DataUnavailableError, match=message) as caught:
        celeba.info()
    assert str(celeba.partition) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "saved",
    [
        lambda text: "\ufeff" + text,
        lambda text: text + "\n",
        lambda text: text + "  \n\n",
        lambda text: text.replace(" ", "\t"),
        lambda text: text.replace(" ", "   "),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.rstrip("\n"),
    ],
)
def test_a_partition_list_saved_by_an_editor_is_the_same_list(celeba, monkeypatch, saved):
    official = hashlib.md5(celeba.partition.read_bytes()).hexdigest()
    listed = [("id", official, "list_eval_partition.txt")]
    monkeypatch.setattr(torchvision.datasets.CelebA, "file_list", listed)
    before = celeba.info()
    assert before.variant == "complete"
    celeba.partition.write_bytes(saved(celeba.partition.read_text()).encode())
    assert celeba.info() == before
