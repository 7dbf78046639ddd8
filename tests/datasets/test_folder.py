import numpy as np
import pytest
from PIL import Image

from bench.datasets.folder import ImageFolder
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
    for number in range(20):
        picture(tmp_path / f"{number:02}.png", number)
    dataset = ImageFolder("own", tmp_path)
    info = dataset.info()
    assert (info.train_size, info.test_size) == (16, 4)
    assert "split 80/20 at random with seed 0" in info.source
    data = dataset.load(protocol(image_size=8))
    train, test = values(data.train.images), values(data.test.images)
    assert sorted(train + test) == list(range(20))
    assert (train, test) == (sorted(train), sorted(test))
    assert test != [16, 17, 18, 19]
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
