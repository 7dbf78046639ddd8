import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from bench.datasets.dataset import Split
from bench.datasets.preprocessing import draw, fingerprint_arrays, fingerprint_files, prepare
from bench.errors import BenchError, DataUnavailableError


@pytest.mark.parametrize("name", ["nearest", "box", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 28, 28, 3), (3, 28, 28, 1)])
def test_prepare_is_pils_resize(protocol, rng, name, shape):
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    prepared = prepare(images, protocol(image_size=20, interpolation=name))
    assert prepared.shape == (3, 3 if shape[-1] == 3 else 1, 20, 20)
    assert prepared.dtype == np.uint8
    for image, result in zip(images, prepared, strict=True):
        resample = getattr(Image.Resampling, name.upper())
        expected = np.asarray(Image.fromarray(image.squeeze()).resize((20, 20), resample))
        np.testing.assert_array_equal(result.transpose(1, 2, 0).squeeze(), expected)


def test_prepare_crops_as_torchvision_does(protocol, rng):
    pictures = [Image.fromarray(rng.integers(0, 256, (218, 178, 3), dtype=np.uint8))]
    prepared = prepare(pictures, protocol(image_size=64, center_crop=147))
    transform = v2.Compose([v2.CenterCrop(147), v2.Resize(64), v2.PILToTensor()])
    np.testing.assert_array_equal(prepared[0], transform(pictures[0]).numpy())


def test_prepare_returns_images_of_the_right_size_unchanged(protocol, rng):
    images = rng.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    prepared = prepare(images, protocol(image_size=16))
    np.testing.assert_array_equal(prepared, images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(
        prepared, prepare(map(Image.fromarray, images), protocol(image_size=16))
    )


def test_prepare_crops_before_it_skips(protocol, rng):
    images = rng.integers(0, 256, (2, 16, 16), dtype=np.uint8)
    prepared = prepare(images, protocol(image_size=16, center_crop=8))
    expected = Image.fromarray(images[0, 4:12, 4:12]).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(prepared[0, 0], np.asarray(expected))


def test_prepare_crops_what_is_not_square_to_its_central_square(protocol, rng):
    images = rng.integers(0, 256, (2, 10, 16), dtype=np.uint8)
    prepared = prepare(images, protocol(image_size=10))
    np.testing.assert_array_equal(prepared[:, 0], images[:, :, 3:13])


def test_a_crop_larger_than_the_image_is_refused(protocol):
    with pytest.raises(BenchError, match=r"28x28 pixels .* center_crop of 148"):
        prepare(np.zeros((1, 28, 28), np.uint8), protocol(center_crop=148))


def test_draw_keeps_order_and_repeats():
    drawn = draw(1000, 50)
    assert len(set(drawn)) == 50
    assert (np.diff(drawn) > 0).all()
    assert drawn[-1] > 500
    np.testing.assert_array_equal(drawn, draw(1000, 50))


def test_draw_is_the_same_on_every_machine():
    # the legacy generator's stream, which NumPy promises never to change
    assert draw(10, 4).tolist() == [2, 4, 8, 9]


@pytest.mark.parametrize("limit", [None, 10, 11])
def test_draw_gives_the_whole_split_if_there_is_no_more(limit):
    np.testing.assert_array_equal(draw(10, limit), np.arange(10))


def test_the_fingerprint_sees_every_part_of_both_splits():
    images, labels = np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.int64)
    other_images, other_labels = images.copy(), labels.copy()
    other_images[1, 3, 3], other_labels[1] = 1, 1
    split = Split(images, labels)
    variants = [
        (split, split),
        (Split(other_images, labels), split),
        (split, Split(other_images, labels)),
        (Split(images, other_labels), split),
        (split, Split(images, other_labels)),
        (Split(images, None), split),
        (Split(images.reshape(2, 2, 8), labels), split),
        (Split(images.view(np.int8), labels), split),
    ]
    fingerprints = [fingerprint_arrays(*variant) for variant in variants]
    assert len(set(fingerprints)) == len(variants)
    assert fingerprint_arrays(split, split) == fingerprints[0]


def test_the_fingerprint_does_not_depend_on_memory_layout(rng):
    images = rng.integers(0, 256, (3, 4, 5), dtype=np.uint8)
    plain, fortran = Split(images, None), Split(np.asfortranarray(images), None)
    assert fingerprint_arrays(plain, plain) == fingerprint_arrays(fortran, plain)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataUnavailableError, match=r"gone\.png cannot be read"):
        fingerprint_files([("gone.png", tmp_path / "gone.png")])
