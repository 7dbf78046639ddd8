import numpy as np
import pytest
from sklearn.datasets import load_digits

from bench.datasets.digits import Digits


@pytest.fixture
def digits(tmp_path):
    return Digits(tmp_path / "no" / "such" / "root")


def test_digits_are_always_here(digits):
    digits.fetch()
    assert digits.missing() is None
    assert not digits.root.exists()


def test_what_digits_say_of_themselves(digits):
    info = digits.info()
    assert (info.name, info.channels, info.variant) == ("digits", 1, "complete")
    assert (info.train_size, info.test_size) == (1437, 360)
    assert info.fingerprint == digits.info().fingerprint


def test_every_digit_is_in_one_split_with_its_label(digits):
    train, test = digits.read()
    images = np.concatenate([train.images, test.images])
    labels = np.concatenate([train.labels, test.labels])
    original = load_digits()
    expected = sorted(
        (image.tobytes(), label)
        for image, label in zip(
            np.rint(original.images / 16 * 255).astype(np.uint8), original.target, strict=True
        )
    )
    assert sorted((i.tobytes(), n) for i, n in zip(images, labels, strict=True)) == expected


def test_pixels_span_the_whole_range(digits):
    train, test = digits.read()
    for split in (train, test):
        assert (split.images.min(), split.images.max()) == (0, 255)


def test_the_split_keeps_the_classes_proportions(digits):
    train, test = digits.read()
    counts = [np.bincount(split.labels, minlength=10) / len(split) for split in (train, test)]
    np.testing.assert_allclose(counts[0], counts[1], atol=0.003)


def test_digits_load_as_the_protocol_says(digits, protocol):
    data = digits.load(protocol(image_size=16, train_images=100, test_images=5000))
    assert data.train.images.shape == (100, 1, 16, 16)
    assert data.train.labels.shape == (100,)
    assert len(data.test) == 360
    whole = digits.load(protocol(image_size=16)).train
    drawn = [
        np.flatnonzero((whole.images == image).all((1, 2, 3)))[0] for image in data.train.images
    ]
    assert (np.diff(drawn) > 0).all()
    np.testing.assert_array_equal(whole.labels[drawn], data.train.labels)
