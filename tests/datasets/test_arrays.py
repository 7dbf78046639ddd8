import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.datasets import load_digits

from bench.datasets.arrays import ArrayFile
from bench.errors import DataUnavailableError

IMAGES = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8)
LABELS = np.arange(4)


def good(**changes):
    arrays = {
        "train_images": IMAGES,
        "train_labels": LABELS,
        "test_images": IMAGES[:2],
        "test_labels": LABELS[:2],
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def opened(path, **arrays):
    np.savez(path, **arrays)
    return ArrayFile("own", path)


def test_medmnist_keys(tmp_path, protocol):
    dataset = opened(tmp_path / "own.npz", **good(val_images=IMAGES, val_labels=LABELS))
    assert dataset.missing() is None
    dataset.fetch()
    info = dataset.info()
    assert (info.name, info.channels, info.variant) == ("own", 1, "complete")
    assert (info.train_size, info.test_size) == (4, 2)
    assert "unknown" in info.licence
    assert "own.npz" in info.source
    data = dataset.load(protocol(image_size=8, train_images=3))
    assert data.train.images.shape == (3, 1, 8, 8)
    np.testing.assert_array_equal(data.train.images[:, 0], IMAGES[data.train.labels])
    np.testing.assert_array_equal(data.test.images[:, 0], IMAGES[:2])


def test_keras_keys_and_colour(tmp_path, protocol):
    images = np.stack([IMAGES, IMAGES[::-1], IMAGES], axis=-1)
    labels = LABELS.astype(np.uint8)[:, None]
    dataset = opened(tmp_path / "a.npz", x_train=images, y_train=labels, x_test=images)
    assert dataset.info().channels == 3
    data = dataset.load(protocol(image_size=8))
    np.testing.assert_array_equal(data.train.images, images.transpose(0, 3, 1, 2))
    assert data.train.labels.tolist() == [0, 1, 2, 3]
    assert data.train.labels.dtype == np.int64
    assert data.test.labels is None


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint16, np.int64, ">i4"])
def test_other_integers_whose_values_fit(tmp_path, dtype):
    images = np.minimum(IMAGES, 127)
    expected = opened(tmp_path / "uint8.npz", **good(train_images=images)).info().fingerprint
    wide = opened(tmp_path / "wide.npz", **good(train_images=images.astype(dtype)))
    assert wide.read()[0].images.dtype == np.uint8
    assert wide.info().fingerprint == expected


def test_one_explicit_channel_is_the_same_as_none(tmp_path):
    flat = opened(tmp_path / "flat.npz", **good())
    deep = opened(
        tmp_path / "deep.npz",
        **good(train_images=IMAGES[..., None], test_images=IMAGES[:2, ..., None]),
    )
    assert deep.info() == flat.info().__class__(**{**vars(flat.info()), "source": deep.source})


FLOATS = (IMAGES / 255).astype(np.float32)
BAD = {
    "no test split": (good(test_images=None), r"keys train_images, train_labels, test_labels: exp"),
    "no known key": ({"images": IMAGES}, r"keys images: expected train_images and test_images, or"),
    "no key at all": ({}, r"keys \(none\)"),
    "flat vectors": (
        good(train_images=IMAGES.reshape(4, 64)),
        r"train_images .*\(4, 64\).*N, H, W",
    ),
    "five axes": (good(test_images=IMAGES[None, None]), r"test_images .*\(1, 1, 4, 8, 8\)"),
    "channels first": (good(train_images=IMAGES[:, None]), r"\(4, 1, 8, 8\).*\(N, H, W, 1\) or"),
    "two channels": (good(test_images=np.stack([IMAGES] * 2, -1)), r"test_images.*\(4, 8, 8, 2\)"),
    "unlike shapes": (good(test_images=IMAGES[:2, :6]), r"test_images .*\(6, 8\).*\(8, 8\), as tr"),
    "unlike channels": (good(test_images=np.stack([IMAGES[:2]] * 3, -1)), r"\(8, 8, 3\).*\(8, 8\)"),
    "no train image": (good(train_images=IMAGES[:0]), r"train_images .*at least one image"),
    "no pixel": (good(test_images=IMAGES[:2, :0]), r"test_images .*at least one image"),
    "floats in 0..1": (good(train_images=FLOATS), r"float32 .*\(images \* 255\)\.round\(\)"),
    "floats in -1..1": (good(train_images=FLOATS * 2 - 1), r"\(\(images \+ 1\) \* 127\.5\)\.round"),
    "floats in 0..255": (good(train_images=FLOATS * 255), r"with \(images\)\.round\(\)"),
    "nan": (good(test_images=np.where(FLOATS > 0, FLOATS, np.nan)), r"test_images .*non-finite"),
    "infinity": (good(train_images=FLOATS + np.inf), r"train_images .*float32 with non-finite"),
    "booleans": (good(train_images=IMAGES > 9), r"train_images holds bool; expected integers"),
    "text": (good(train_images=IMAGES.astype(str)), r"train_images holds <U3; expected integers"),
    "too large": (
        good(train_images=IMAGES.astype(int) + 1),
        r"1\.\.256; expected values in 0\.\.255",
    ),
    "negative": (good(test_images=IMAGES.astype(int) - 1), r"-1\.\..*expected values in 0\.\.255"),
    "too few labels": (
        good(train_labels=LABELS[:3]),
        r"train_labels .*\(3,\).*each of the 4 images",
    ),
    "many labels": (good(test_labels=np.zeros((2, 14), int)), r"test_labels .*\(2, 14\)"),
    "real labels": (good(train_labels=LABELS / 2), r"train_labels holds float64"),
    "objects": (good(train_images=IMAGES.astype(object)), r"allow_pickle"),
    "object labels": (good(test_labels=LABELS[:2].astype(object)), r"allow_pickle"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_content_is_named_in_one_line(tmp_path, protocol, case):
    arrays, message = BAD[case]
    dataset = opened(tmp_path / "own.npz", **arrays)
    for use in (dataset.info, dataset.fetch, lambda: dataset.load(protocol())):
        with pytest.raises(DataUnavailableError, match=message) as caught:
            use()
        assert "own.npz" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    dataset = ArrayFile("own", tmp_path / "gone.npz")
    assert "gone.npz" in dataset.missing()
    with pytest.raises(DataUnavailableError, match=r"'own' is not available: .*gone\.npz"):
        dataset.info()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"\x80\x04N."])
def test_what_is_no_npz_file(tmp_path, content):
    path = tmp_path / "own.npz"
    path.write_bytes(content)
    with pytest.raises(DataUnavailableError, match=r"own\.npz is not a \.npz file"):
        ArrayFile("own", path).info()


def test_a_lone_array(tmp_path):
    path = tmp_path / "own.npz"
    with path.open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(DataUnavailableError, match=r"is not a \.npz file"):
        ArrayFile("own", path).info()


def test_members_that_are_no_arrays(tmp_path):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train_images.npy", "text")
        archive.writestr("test_images", "text")
    with pytest.raises(DataUnavailableError, match=r"own\.npz"):
        ArrayFile("own", path).info()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damage_is_either_harmless_or_told(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damage") / "own.npz"
    expected = opened(path, train_images=IMAGES, test_images=IMAGES[:2]).info()
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[position:]
    else:
        content[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        found, message = ArrayFile("own", path).info(), "own.npz"
    except DataUnavailableError as error:
        found, message = expected, str(error)
    assert found == expected
    assert "own.npz" in message
    assert "\n" not in message


SHAPES = st.tuples(st.integers(8, 12), st.integers(8, 12), st.sampled_from([(), (1,), (3,)]))


@st.composite
def splits(draw):
    height, width, channels = draw(SHAPES)
    train, test = (
        draw(hnp.arrays(np.uint8, (draw(st.integers(1, 3)), height, width, *channels)))
        for _ in range(2)
    )
    train.flat[0] = 255
    return {"train_images": train, "test_images": test}


@given(arrays=splits(), data=st.data())
@settings(max_examples=40, deadline=None)
def test_round_trip(tmp_path_factory, protocol, arrays, data):
    folder: Path = tmp_path_factory.mktemp("round")
    original = opened(folder / "a.npz", **arrays)
    np.savez_compressed(folder / "b.npz", **dict(reversed(arrays.items())))
    assert ArrayFile("other", folder / "b.npz").info().fingerprint == original.info().fingerprint

    height, width = arrays["train_images"].shape[1:3]
    if height == width == 8:
        loaded = original.load(protocol(image_size=8))
        expected = arrays["test_images"].reshape(-1, 8, 8, original.info().channels)
        np.testing.assert_array_equal(loaded.test.images, expected.transpose(0, 3, 1, 2))

    key = data.draw(st.sampled_from(sorted(arrays)))
    changed = arrays[key].copy()
    changed.flat[data.draw(st.integers(0, changed.size - 1))] ^= 1 << data.draw(st.integers(0, 7))
    other = opened(folder / "c.npz", **(arrays | {key: changed}))
    assert other.info().fingerprint != original.info().fingerprint


def digits_in(path, change=lambda images: images):
    """scikit-learn's digits, 0..16, after a change; the first 100 for training."""
    images = change(load_digits().images.astype(np.uint8))
    np.savez(path, train_images=images[:100], test_images=images[100:150])
    return path


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda images: (images > 8).astype(np.uint8), r"in 0\.\.1, .*--range 0,1 .*\(255 / 1\)"),
        (lambda images: images, r"in 0\.\.16, .*--range 0,16 .*\(255 / 16\)"),
        (lambda images: images * 3, r"in 0\.\.48, .*--range 0,48 "),
        (lambda images: images.astype(np.uint16) * 255, r"in 0\.\.4080; .*--range 0,4095 "),
        (lambda images: images.astype(np.int32) - 8, r"-8\.\.8; .*--range -8,8 "),
        (lambda images: images > 8, r"holds bool; .*--range 0,1 "),
        (lambda images: images / 16, r"in 0\.\.1; .*--range 0,1 "),
        (lambda images: images / 8 - 1, r"in -1\.\.1; .*--range -1,1 "),
    ],
)
def test_another_range_than_0_255_is_refused_with_what_to_say(tmp_path, change, named):
    with pytest.raises(DataUnavailableError, match=named) as caught:
        ArrayFile("own", digits_in(tmp_path / "own.npz", change)).info()
    assert "train_images" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "value_range"),
    [
        (lambda images: images, (0, 16)),
        (
            lambda images: images.astype(np.uint16) * 4096 - images.astype(np.uint16) // 16,
            (0, 65535),
        ),
        (lambda images: images / 16, (0, 1)),
        (lambda images: (images / 8 - 1).astype(np.float16), (-1, 1)),
        (lambda images: np.rint(images * (255 / 16)).astype(np.uint8), (0, 255)),
    ],
)
def test_the_range_that_is_said_is_mapped_to_0_255(tmp_path, protocol, change, value_range):
    path = digits_in(tmp_path / "own.npz", change)
    dataset = ArrayFile("own", path, value_range=value_range)
    expected = np.rint(load_digits().images[:100] * 255 / 16).astype(np.uint8)
    images = dataset.load(protocol(image_size=8)).train.images[:, 0]
    assert np.abs(images.astype(int) - expected).max() <= (value_range == (0, 65535))
    assert "{:g}..{:g} mapped".format(*value_range) in dataset.info().source


def test_booleans_and_dark_images_are_taken_if_their_range_is_said(tmp_path, protocol):
    path = digits_in(tmp_path / "own.npz", lambda images: images > 8)
    loaded = ArrayFile("own", path, value_range=(0, 1)).load(protocol(image_size=8))
    assert set(np.unique(loaded.train.images)) == {0, 255}
    dark = ArrayFile("own", digits_in(tmp_path / "dark.npz"), value_range=(0, 255))
    assert dark.load(protocol(image_size=8)).train.images.max() == 16


def test_dark_images_are_taken_if_one_is_bright(tmp_path):
    images = np.full((4, 8, 8), 20, np.uint8)
    assert opened(tmp_path / "a.npz", train_images=images, test_images=images + 44).info()
    with pytest.raises(DataUnavailableError, match=r"in 20\.\.63, which are nearly black"):
        opened(tmp_path / "b.npz", train_images=images, test_images=images + 43).info()


def test_values_outside_of_the_range_that_is_said(tmp_path):
    path = digits_in(tmp_path / "own.npz")
    with pytest.raises(DataUnavailableError, match=r"train_images .*0\.\.16; .*range 0\.\.15\."):
        ArrayFile("own", path, value_range=(0, 15)).info()
    nan = digits_in(tmp_path / "nan.npz", lambda images: np.where(images > 0, images, np.nan))
    with pytest.raises(DataUnavailableError, match="non-finite"):
        ArrayFile("own", nan, value_range=(0, 16)).info()


def test_keys_that_are_not_used_are_told(tmp_path):
    info = opened(tmp_path / "own.npz", **good(val_images=IMAGES, note=LABELS)).info()
    assert info.notes == (f"Left out of {tmp_path / 'own.npz'}: the keys note, val_images.",)
    assert opened(tmp_path / "all.npz", **good()).info().notes == ()


@pytest.mark.parametrize("key", ["train_label", "trainlabels", "Train_labels"])
def test_a_misspelt_key_of_labels_is_refused(tmp_path, key):
    dataset = opened(tmp_path / "own.npz", **good(train_labels=None, **{key: LABELS}))
    with pytest.raises(DataUnavailableError, match=f"the key {key} and no train_labels: rename"):
        dataset.info()


@pytest.mark.parametrize(
    ("shape", "line"),
    [
        ((4, 1, 8, 8), "images[:, 0]"),
        ((4, 3, 8, 8), "images.transpose(0, 2, 3, 1)"),
        ((4, 4, 8, 8), "images[:, :3].transpose(0, 2, 3, 1)"),
        ((4, 8, 8, 4), "images[..., :3]"),
        ((8, 8, 3, 5), "np.moveaxis(images, -1, 0)"),
        ((4, 64), "images.reshape(-1, 8, 8)"),
        ((4, 192), "images.reshape(-1, 3, 8, 8).transpose(0, 2, 3, 1)"),
    ],
)
def test_another_layout_is_answered_with_the_line_that_converts_it(tmp_path, shape, line):
    images = np.zeros(shape, np.uint8)
    with pytest.raises(DataUnavailableError) as caught:
        opened(tmp_path / "own.npz", train_images=images, test_images=images).info()
    assert str(caught.value).endswith(f"convert with {line}.")
    converted = eval(line, {"images": images, "np": np})
    assert converted.shape[1:] in {(8, 8), (8, 8, 3)}
