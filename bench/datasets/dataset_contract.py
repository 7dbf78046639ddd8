"""Calls of datasets, with their answers checked: plug-ins can raise or return anything."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import numpy as np

from bench.datasets.dataset import Dataset, DatasetInfo, ImageData, Split, Variant
from bench.datasets.value_range import LEAST_MAXIMUM, scaled_floats
from bench.errors import BenchError, DataUnavailableError, one_line
from bench.protocol import Protocol
from bench.system.class_attributes import TEXT, check_attributes

CHANNELS = (1, 3)


class _BreachError(Exception):
    """An answer that breaks the contract; the message says what it is and what to return."""


def check_dataset(name: str, dataset: Dataset) -> None:
    """Check the attributes of a registered dataset.

    Args:
        name: registered name.
        dataset: the dataset.

    Raises:
        TypeError: an attribute is missing or wrong; the message names it.
    """
    check_attributes(dataset, {"name": TEXT, "source": TEXT, "licence": TEXT})
    if dataset.name != name:
        raise TypeError(f"its attribute name is {dataset.name!r}; set it to {name!r}")


def missing(dataset: Dataset) -> str | None:
    """Return what is missing of a dataset; None if all is here.

    Raises:
        DataUnavailableError: its ``missing`` fails or returns something else.
    """
    with blamed(dataset, "missing"):
        answer = dataset.missing()
        if answer is not None and (not isinstance(answer, str) or not answer):
            raise _BreachError(f"it returned {answer!r}; return None or what was looked for")
    return answer


def fetch(dataset: Dataset) -> None:
    """Download a dataset.

    Raises:
        DataUnavailableError: its ``fetch`` fails.
    """
    with blamed(dataset, "fetch"):
        dataset.fetch()


def describe(dataset: Dataset) -> DatasetInfo:
    """Return the description of a dataset.

    Raises:
        DataUnavailableError: its ``info`` fails, or returns something else than a description.
    """
    with blamed(dataset, "info"):
        info = dataset.info()
        _check_info(dataset, info)
    return info


def load_images(dataset: Dataset, info: DatasetInfo, protocol: Protocol) -> ImageData:
    """Load both splits of a dataset, as :meth:`Dataset.load` does.

    Args:
        dataset: the dataset.
        info: its description.
        protocol: a protocol resolved for this dataset.

    Returns:
        Contiguous images, with labels of int64 or None.

    Raises:
        DataUnavailableError: its ``load`` fails, or returns images that differ from the
            description or the protocol.
    """
    with blamed(dataset, "load"):
        data = dataset.load(protocol)
        if not isinstance(data, ImageData):
            raise _BreachError(f"it returned {_kind(data)}; return ImageData(train, test)")
        size = (info.channels, protocol.image_size, protocol.image_size)
        train = min(info.train_size, protocol.train_images or info.train_size)
        test = min(info.test_size, protocol.test_images or info.test_size)
        validation = data.validation
        loaded = ImageData(
            _loaded("train", data.train, (train, *size)),
            _loaded("test", data.test, (test, *size)),
            validation and _loaded("validation", validation, (len(validation), *size)),
        )
        _check_brightness(dataset, loaded.train, loaded.test)
        return loaded


def read_stored(dataset: Dataset, read: Callable[[], Any]) -> tuple[Split, Split]:
    """Read splits as they are stored, with the channels last, and check them.

    Args:
        dataset: the dataset.
        read: its method ``read``, which returns the train and the test split, each with uint8
            images ``(N, H, W)``, ``(N, H, W, 1)`` or ``(N, H, W, 3)`` and labels ``(N,)`` or None.

    Raises:
        DataUnavailableError: it fails or returns something else; the message says what to return.
    """
    with blamed(dataset, "read"):
        try:
            splits = read()
        except OSError as error:
            raise DataUnavailableError(
                f"The dataset {dataset.name!r} cannot be read: {error}."
            ) from error
        if not isinstance(splits, tuple | list) or len(splits) != 2:
            raise _BreachError(f"it returned {_kind(splits)}; return the train and the test Split")
        train, test = splits
        for name, split in (("train", train), ("test", test)):
            _check_split(name, split)
            _check_stored_shape(name, split.images.shape)
        if train.images.shape[1:] != test.images.shape[1:]:
            raise _BreachError(
                f"an image has the shape {train.images.shape[1:]} in train and "
                f"{test.images.shape[1:]} in test; return the same shape in both"
            )
        _check_brightness(dataset, train, test)
    return train, test


@contextmanager
def blamed(dataset: Dataset, method: str) -> Iterator[None]:
    """Turn every error in the context into one that names the dataset and its method.

    Raises:
        DataUnavailableError: an error was raised; an error of the suite stays as it is.
    """
    try:
        yield
    except BenchError:
        raise
    except Exception as error:
        kind = type(dataset)
        what = str(error) if isinstance(error, _BreachError) else one_line(error).rstrip(".")
        raise DataUnavailableError(
            f"The dataset {dataset.name!r} cannot be used: {method} of "
            f"{kind.__module__}.{kind.__qualname__}: {what}."
        ) from error


def _check_info(dataset: Dataset, info: Any) -> None:
    if not isinstance(info, DatasetInfo):
        raise _BreachError(f"it returned {_kind(info)}; return a DatasetInfo")
    if info.name != dataset.name:
        raise _BreachError(f"name is {info.name!r}; set it to {dataset.name!r}")
    sides_known = isinstance(info.shape, tuple) and len(info.shape) == 3
    if not sides_known or info.shape[0] not in CHANNELS or not all(map(_is_side, info.shape[1:])):
        raise _BreachError(f"shape is {info.shape!r}; set it to (C, H, W) with C = 1 or 3")
    for name in ("train_size", "test_size"):
        if not _is_count(size := getattr(info, name)):
            raise _BreachError(f"{name} is {size!r}; set it to the number of images, at least 1")
    counts = info.class_counts
    if counts is not None and not (counts and all(isinstance(n, int) and n >= 0 for n in counts)):
        raise _BreachError(
            f"class_counts is {counts!r}; set it to the number of training images of each class, "
            "or to None"
        )
    for name in ("source", "licence", "fingerprint"):
        if not TEXT.holds(text := getattr(info, name)):
            raise _BreachError(f"{name} is {text!r}; set it to {TEXT.words}")
    if info.variant not in get_args(Variant):
        raise _BreachError(
            f"variant is {info.variant!r}; set it to one of {', '.join(get_args(Variant))}"
        )


def _is_count(size: object) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and size > 0


def _is_side(size: object) -> bool:
    return size is None or _is_count(size)


def _loaded(name: str, split: Any, shape: tuple[int, ...]) -> Split:
    """Check a split after preprocessing, and return it with contiguous images and int64 labels."""
    _check_split(name, split)
    if split.images.shape != shape:
        raise _BreachError(
            f"the {name} images have the shape {split.images.shape}; return {shape}, as the "
            "description and the protocol say"
        )
    labels = None if split.labels is None else split.labels.astype(np.int64)
    return Split(np.require(split.images, requirements=["C", "W"]), labels)


def _check_split(name: str, split: Any) -> None:
    if not isinstance(split, Split):
        raise _BreachError(
            f"the {name} split is {_kind(split)}; return a Split, as in Split(images, labels)"
        )
    images, labels = split.images, split.labels
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise _BreachError(
            f"the {name} images are {_kind(images)}; return a NumPy array of uint8 in 0..255"
            f"{_conversion(images)}"
        )
    if not images.size:
        raise _BreachError(
            f"the {name} images have the shape {images.shape}; return at least one image"
        )
    if labels is None:
        return
    expected = f"return a NumPy array of {len(images)} integers, or None"
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        raise _BreachError(f"the {name} labels are {_kind(labels)}; {expected}")
    if labels.shape != (len(images),):
        raise _BreachError(f"the {name} labels have the shape {labels.shape}; {expected}")


def _check_stored_shape(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in CHANNELS):
        raise _BreachError(
            f"the {name} images have the shape {shape}; return (N, H, W), (N, H, W, 1) or "
            "(N, H, W, 3)"
        )


def _check_brightness(dataset: Dataset, train: Split, test: Split) -> None:
    highest = max(train.images.max(), test.images.max())
    if highest < LEAST_MAXIMUM and not dataset.dark:
        raise _BreachError(
            f"the values lie in 0..{highest}, which is nearly black in 0..255; scale them to "
            "0..255, or set the attribute dark = True if the images are this dark"
        )


def _kind(value: Any) -> str:
    """Describe a value by its type and, for an array, its dtype.

    >>> _kind(np.zeros(2)), _kind([0])
    ('a float64 ndarray', 'a list')
    """
    name = type(value).__name__
    return f"a {value.dtype} {name}" if hasattr(value, "dtype") else f"a {name}"


def _conversion(images: Any) -> str:
    """Return how to convert floats in [0, 1] or [-1, 1] to bytes, for a message."""
    if not isinstance(images, np.ndarray) or images.dtype.kind != "f" or not images.size:
        return ""
    lowest, highest = images.min(), images.max()
    if not (lowest >= -1 and highest <= 1):
        return ""
    scaled = scaled_floats(lowest, highest)
    return f": convert values in {lowest:g}..{highest:g} with ({scaled}).round().astype('uint8')"
