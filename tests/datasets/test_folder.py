import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from bench.datasets.folder import ImageFolder
from bench.datasets.image_files import decode
from bench.errors import BenchError, DataUnavailableError


def picture(path, value=0, mode="L", size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).convert(mode).save(path)


@pytest.fixture
def pets(tmp_path):
    """Two classes, three train and two test images in each; grey, each of one value."""
    for number, (kind, index) in enumerate((k, i) for k in ("dog", "cat") for i in range(3)):
        picture(tmp_path / "pets" / "train" / kind / f"{index}.png", number)
        if index < 2:
            picture(tmp_path / "pets" / "test" / kind / f"{index}.png", 100 + number)
    return tmp_path / "pets"


def values(images):
    return images[:, 0, 0, 0].tolist()


def test_train_and_test_in_class_subfolders(pets, protocol):
    dataset = ImageFolder("pets", pets)
    assert dataset.missing() is None
    dataset.fetch()
    info = dataset.info()
    assert (info.train_size, info.test_size, info.channels) == (6, 4, 1)
    assert (info.name, info.variant) == ("pets", "complete")
    assert "split" not in info.source
    data = dataset.load(protocol(image_size=8))
    assert values(data.train.images) == [3, 4, 5, 0, 1, 2]
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert values(data.test.images) == [103, 104, 100, 101]
    assert data.test.labels.tolist() == [0, 0, 1, 1]


def test_train_and_test_without_classes(tmp_path, protocol):
    picture(tmp_path / "train" / "b.png", 2)
    picture(tmp_path / "train" / "a.jpg", 1)
    picture(tmp_path / "test" / "c.bmp", 3)
    data = ImageFolder("own", tmp_path).load(protocol(image_size=8))
    assert values(data.train.images) == [1, 2]
    assert values(data.test.images) == [3]
    assert data.train.labels is None


def test_a_folder_alone_is_split(tmp_path, protocol):
    for number in range(100, 120):
        picture(tmp_path / f"{number}.png", number)
    dataset = ImageFolder("own", tmp_path)
    info = dataset.info()
    assert (info.train_size, info.test_size) == (16, 4)
    assert "split 80/20 at random with seed 0" in info.source
    data = dataset.load(protocol(image_size=8))
    train, test = values(data.train.images), values(data.test.images)
    assert sorted(train + test) == list(range(100, 120))
    assert (train, test) == (sorted(train), sorted(test))
    assert test != [116, 117, 118, 119]
    again = dataset.load(protocol(image_size=8))
    assert values(again.test.images) == test


def test_classes_of_a_folder_alone_keep_their_labels(tmp_path, protocol):
    """The test images drawn need not cover every class."""
    for number in range(10):
        picture(tmp_path / f"class{number}" / "only.png", number)
    data = ImageFolder("own", tmp_path).load(protocol(image_size=8))
    assert len(data.test) == 2
    for split in (data.train, data.test):
        assert split.labels.tolist() == values(split.images)


def test_a_limit_draws_images_with_their_labels(tmp_path, protocol):
    for number in range(30):
        picture(tmp_path / "train" / f"class{number:02}" / "only.png", number)
        picture(tmp_path / "test" / f"class{number:02}" / "only.png", number)
    data = ImageFolder("own", tmp_path).load(protocol(image_size=8, train_images=5, test_images=99))
    assert len(data.train) == 5
    assert data.train.labels.tolist() == values(data.train.images)
    assert data.train.labels.tolist() != [0, 1, 2, 3, 4]
    assert len(data.test) == 30


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)]
)
def test_one_coloured_image_makes_all_colour(pets, protocol, mode, channels):
    picture(pets / "test" / "dog" / "z.png", 255, mode)
    dataset = ImageFolder("pets", pets)
    assert dataset.info().channels == channels
    data = dataset.load(protocol(image_size=8))
    assert data.train.images.shape == (6, channels, 8, 8)
    assert (data.test.images[-1] == 255).all()


def test_sixteen_bits_are_refused(pets):
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(pets / "train" / "cat" / "deep.png")
    with pytest.raises(DataUnavailableError, match=r"deep\.png .*mode I;16: expected 8 bits"):
        ImageFolder("pets", pets).info()


def test_any_size_is_cropped_and_resized_as_pil_does(tmp_path, protocol, rng):
    pictures = []
    for index, (height, width) in enumerate([(30, 50), (41, 20), (16, 16)]):
        pictures.append(Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)))
        pictures[-1].save(tmp_path / f"{index}.png")
    data = ImageFolder("own", tmp_path).load(protocol(image_size=16))
    boxes = [(10, 0, 40, 30), (0, 10, 20, 30), (0, 0, 16, 16)]
    expected = {
        np.asarray(image.crop(box).resize((16, 16), Image.Resampling.BILINEAR)).tobytes()
        for image, box in zip(pictures, boxes, strict=True)
    }
    found = np.concatenate([data.train.images, data.test.images]).transpose(0, 2, 3, 1)
    assert {np.ascontiguousarray(image).tobytes() for image in found} == expected


def test_an_image_smaller_than_the_crop_is_named(pets, protocol):
    with pytest.raises(BenchError, match=r"0\.png of 8x8 pixels is smaller .*center_crop of 20"):
        ImageFolder("pets", pets).load(protocol(center_crop=20))


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_a_corrupt_image_is_named(pets, protocol, damage, rng):
    broken = pets / "test" / "cat" / "broken.png"
    noise = Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8))
    noise.save(broken)
    content = broken.read_bytes()
    broken.write_bytes(
        {"truncated": content[: len(content) // 2], "text": b"no", "empty": b""}[damage]
    )
    with pytest.raises(DataUnavailableError, match=r"cat/broken\.png cannot be read as an image"):
        ImageFolder("pets", pets).load(protocol(image_size=8))


def test_hidden_files_and_other_files_are_not_looked_at(pets):
    before = ImageFolder("pets", pets).info()
    picture(pets / "train" / "cat" / ".hidden.png")
    picture(pets / "train" / ".hidden" / "cat.png")
    (pets / "train" / "readme.txt").write_text("cats and dogs")
    assert ImageFolder("pets", pets).info() == before


def test_the_fingerprint_is_of_names_and_bytes(pets, tmp_path):
    before = ImageFolder("pets", pets).info().fingerprint
    moved = pets.rename(tmp_path / "moved")
    assert ImageFolder("pets", moved).info().fingerprint == before
    picture(moved / "test" / "dog" / "0.png", 77)
    changed = ImageFolder("pets", moved).info().fingerprint
    assert changed != before
    (moved / "test" / "dog" / "0.png").rename(moved / "test" / "dog" / "00.png")
    assert ImageFolder("pets", moved).info().fingerprint not in {before, changed}


def empty(folder):
    (folder / "train").mkdir(parents=True)
    (folder / "test").mkdir()


def without_test(folder):
    picture(folder / "train" / "a.png")


def other_classes(folder):
    picture(folder / "train" / "cat" / "a.png")
    picture(folder / "test" / "dog" / "a.png")


def mixed(folder):
    picture(folder / "cat" / "a.png")
    picture(folder / "b.png")


def single(folder):
    picture(folder / "a.png")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (empty, r"train holds no images"),
        (without_test, r"test does not exist: expected both train and test"),
        (other_classes, r"classes \['cat'\] in train and \['dog'\] in test"),
        (mixed, r"in subfolders \(cat/a\.png\) and outside of them \(b\.png\)"),
        (single, r"a\.png is the only image"),
        (lambda folder: None, r"'own' is not available: looked for the folder"),
        (lambda folder: folder.mkdir(), r"own holds no images"),
    ],
)
def test_bad_folders(tmp_path, protocol, build, message):
    build(tmp_path / "own")
    dataset = ImageFolder("own", tmp_path / "own")
    for use in (dataset.info, dataset.fetch, lambda: dataset.load(protocol())):
        with pytest.raises(DataUnavailableError, match=message):
            use()


def linked(pets, tmp_path):
    """The pets, with the class dog and one file of cat behind links."""
    for split in ("train", "test"):
        (pets / split / "dog").rename(tmp_path / f"{split}-dog")
        (pets / split / "dog").symlink_to(tmp_path / f"{split}-dog")
        (pets / split / "cat" / "0.png").rename(tmp_path / f"{split}-0.png")
        (pets / split / "cat" / "0.png").symlink_to(tmp_path / f"{split}-0.png")


def test_links_are_followed(pets, tmp_path):
    before = ImageFolder("pets", pets).info()
    linked(pets, tmp_path)
    after = ImageFolder("pets", pets).info()
    assert after == before
    assert after.notes == ()


@pytest.mark.parametrize("target", [".", "..", "../..", "../../.."])
def test_links_in_a_circle_are_followed_once(pets, target):
    before = ImageFolder("pets", pets).info()
    (pets / "train" / "cat" / "loop").symlink_to(target)
    after = ImageFolder("pets", pets).info()
    assert after == before
    assert "1 links in a circle (train/cat/loop)" in after.notes[0]


def test_what_is_left_out_is_counted_and_named(pets):
    before = ImageFolder("pets", pets).info()
    assert before.notes == ()
    picture(pets / "train" / "cat" / "@eaDir" / "SYNOPHOTO_THUMB_M.png", 3)
    picture(pets / "test" / "__MACOSX" / "cat" / "0.png", 3)
    picture(pets / "val" / "cat" / "0.png", 3)
    picture(pets / "train" / "cat" / "._0.png", 3)
    for name in ("a.HEIC", "b.heic", "scan", "readme.txt", "labels.h5"):
        (pets / "train" / "dog" / name).write_bytes(b"\x89HDF\r\n\x1a\n")
    (pets / "train" / "dog" / "gone.png").symlink_to(pets / "gone.png")
    after = ImageFolder("pets", pets).info()
    assert after == before
    (note,) = after.notes
    for part in (
        "2 .heic (train/dog/a.HEIC, ..., convert to PNG or JPEG)",
        "1 .h5 (train/dog/labels.h5)",
        "1 .txt (train/dog/readme.txt)",
        "1 without a suffix (train/dog/scan)",
        "1 broken links (train/dog/gone.png)",
        "1 hidden (train/cat/._0.png)",
        "2 in folders of the system (test/__MACOSX, ...)",
        "1 outside of train and test (val)",
    ):
        assert part in note
    assert "\n" not in note


def test_a_folder_of_unreadable_images_says_what_it_holds(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.heic").write_bytes(b"")
    with pytest.raises(DataUnavailableError, match=r"it holds 1 \.heic .*convert to PNG or JPEG"):
        ImageFolder("own", tmp_path).info()


def quarters():
    """An image whose four quarters differ, so that every turn of it does."""
    image = np.zeros((16, 16, 3), np.uint8)
    image[:8, :8], image[:8, 8:], image[8:, :8] = (240, 10, 10), (10, 240, 10), (10, 10, 240)
    return image


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_a_viewer_turns_them(tmp_path, protocol, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if suffix in ("jpg", "webp") else {}
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        path = tmp_path / split / f"a.{suffix}"
        Image.fromarray(quarters()).save(path, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)), np.int16)
    images = ImageFolder("own", tmp_path).load(protocol(image_size=16)).train.images
    found = images[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(found, expected)
    near = np.abs(found.astype(int) - quarters())[2::11, 2::11] < 60
    assert near.all() == (orientation == 1)


def test_an_orientation_makes_another_fingerprint(pets):
    """Cells of a release that did not turn images must not be taken for those of turned ones."""
    before = ImageFolder("pets", pets).info().fingerprint
    image = Image.open(pets / "train" / "cat" / "0.png")
    image.save(pets / "train" / "cat" / "0.png")
    plain = ImageFolder("pets", pets).info().fingerprint
    assert plain == before
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(pets / "train" / "cat" / "0.png", exif=exif)
    assert ImageFolder("pets", pets).info().fingerprint != before


def test_a_corrupt_orientation_is_passed_over(tmp_path):
    image = Image.new("L", (8, 8), 200)
    image.save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert decode(tmp_path / "a.jpg", "L").size == (8, 8)


def deep(path, values):
    """Write a PNG of 16 bits per channel; PIL writes such files in grey only."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@pytest.mark.parametrize("channels", [1, 3])
def test_deep_images_need_a_range(tmp_path, protocol, rng, channels):
    values = rng.integers(0, 4096, (6, 8, 8, channels))
    for index, image in enumerate(values):
        deep(tmp_path / ("test" if index > 3 else "train") / f"{index}.png", image)
    with pytest.raises(DataUnavailableError, match=r"0\.png .*8 bits per channel.* --range 0,"):
        ImageFolder("own", tmp_path).info()
    dataset = ImageFolder("own", tmp_path, value_range=(0, 4095))
    assert dataset.info().channels == channels
    assert "values 0..4095 mapped to 0..255" in dataset.info().source
    loaded = dataset.load(protocol(image_size=8)).train.images.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(loaded, np.rint(values[:4] * (255 / 4095)))
    with pytest.raises(DataUnavailableError, match=r"\.png .*values in the given range 0\.\.1000"):
        ImageFolder("own", tmp_path, value_range=(0, 1000)).info()


def test_dark_images_need_a_range(pets, protocol):
    for path in (pets / "test").rglob("*.png"):
        picture(path, 16)
    with pytest.raises(
        DataUnavailableError, match=r"pets holds values in 0\.\.16, .*--range 0,16 "
    ):
        ImageFolder("pets", pets).info()
    as_they_are = ImageFolder("pets", pets, value_range=(0, 255))
    stretched = ImageFolder("pets", pets, value_range=(0, 16))
    assert as_they_are.load(protocol(image_size=8)).test.images.max() == 16
    assert stretched.load(protocol(image_size=8)).test.images.max() == 255
    assert stretched.info().fingerprint != as_they_are.info().fingerprint


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every folder")
def test_a_folder_that_cannot_be_read_is_named(pets):
    (pets / "train" / "cat").chmod(0)
    with pytest.raises(DataUnavailableError, match=r"train/cat cannot be read: Permission denied"):
        ImageFolder("pets", pets).info()
    (pets / "train" / "cat").chmod(0o755)
