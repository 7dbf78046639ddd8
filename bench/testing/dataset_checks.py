"""Checks of a dataset: its description, the loaded images, repetition and overlap of the splits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from bench import registry
from bench.datasets import dataset_contract
from bench.datasets.dataset import Dataset, DatasetInfo, ImageData, Split
from bench.errors import DataUnavailableError
from bench.protocol import Protocol, load_protocol
from bench.system.paths import data_root as known_root
from bench.testing.checks import Check, CheckResult, NotApplicableError, require, results

MOST_IMAGES = 5000
"""Training images that are loaded at most; a fifth of them as test images."""
SHARED = 0.01
"""Share of test images that can be training images without a note."""
SAID_SO = "training images"


def check_dataset(
    dataset: str | type[Dataset], data_root: str | Path | None = None
) -> list[CheckResult]:
    """Check a dataset that is on this machine.

    Args:
        dataset: registered name, or class.
        data_root: folder of the datasets; None for the default.

    Returns:
        How each check ended.

    Raises:
        UnknownNameError: no package registers the name.
        DataUnavailableError: the dataset is not here.
    """
    return results(dataset_checks(dataset, data_root))


def dataset_checks(
    dataset: str | type[Dataset], data_root: str | Path | None = None
) -> list[Check]:
    """Return the checks of a dataset, to run one by one; see :func:`check_dataset`."""
    dataset_class = registry.datasets.load(dataset) if isinstance(dataset, str) else dataset
    subject = _Subject(dataset_class, known_root(None if data_root is None else Path(data_root)))
    missing = dataset_contract.missing(subject.opened())
    if missing:
        name = dataset_class.name
        raise DataUnavailableError(
            f"The dataset {name!r} is not here, {missing}: `bench data fetch {name}` downloads it."
        )
    return [Check(name, partial(function, subject)) for name, function in _CHECKS.items()]


@dataclass(frozen=True)
class _Subject:
    """A dataset to check.

    Attributes:
        dataset_class: the class.
        root: folder of the datasets.
    """

    dataset_class: type[Dataset]
    root: Path

    @property
    def protocol(self) -> Protocol:
        """Protocol of the images, at most ``MOST_IMAGES``."""
        settings = (f"train_images={MOST_IMAGES}", f"test_images={MOST_IMAGES // 5}")
        return load_protocol("smoke", settings).resolve("ann_vae", self.dataset_class.name)

    def opened(self) -> Dataset:
        """Return a new instance."""
        return self.dataset_class(self.root)

    def loaded(self) -> ImageData:
        """Load the images with a new instance."""
        dataset = self.opened()
        return dataset_contract.load_images(dataset, self.info, self.protocol)

    @cached_property
    def info(self) -> DatasetInfo:
        """The description of the dataset."""
        return dataset_contract.describe(self.opened())

    @cached_property
    def data(self) -> ImageData:
        """The images of the first load."""
        return self.loaded()


def _declares_itself(subject: _Subject) -> None:
    dataset_contract.check_dataset(subject.dataset_class.name, subject.opened())


def _describes_itself_twice(subject: _Subject) -> None:
    first, second = subject.info, dataset_contract.describe(subject.opened())
    require(
        first.fingerprint == second.fingerprint,
        f"two descriptions have the fingerprints {first.fingerprint[:12]} and "
        f"{second.fingerprint[:12]}: its content changes from reading to reading; draw images with "
        "a fixed seed, and list files in a fixed order",
    )
    require(first == second, f"two descriptions differ: {first} and {second}")
    digits = first.fingerprint.lower()
    require(
        len(digits) == 64 and not set(digits) - set("0123456789abcdef"),
        f"the fingerprint is {first.fingerprint!r}; set it to a SHA-256 as 64 hex digits",
    )


def _loads_as_described(subject: _Subject) -> str:
    train, test = subject.data.train, subject.data.test
    return f"{len(train)} training and {len(test)} test images, {train.images.shape[1:]}"


def _loads_twice(subject: _Subject) -> None:
    again = subject.loaded()
    for name, one, other in (
        ("train", subject.data.train, again.train),
        ("test", subject.data.test, again.test),
    ):
        require(
            np.array_equal(one.images, other.images),
            f"two loads give different {name} images: draw with a fixed seed, and read files in a "
            "fixed order",
        )
        require(
            _same_labels(one, other),
            f"two loads give different {name} labels: keep them in the order of the images",
        )


def _differs_within(subject: _Subject) -> None:
    for name, split in (("train", subject.data.train), ("test", subject.data.test)):
        distinct = len(_keys(split))
        require(
            len(split) == 1 or distinct > len(split) // 2,
            f"only {distinct} of {len(split)} {name} images differ from each other: the others are "
            "repeated",
        )


def _splits_are_disjoint(subject: _Subject) -> str | None:
    train, test = _keys(subject.data.train), [image.tobytes() for image in subject.data.test.images]
    shared = sum(key in train for key in test)
    noted = any(SAID_SO in note for note in subject.info.notes)
    require(
        shared <= SHARED * len(test) or noted,
        f"{shared} of {len(test)} test images are among the training images: take them out of one "
        f"split, or say so in info().notes, with the words {SAID_SO!r}",
    )
    return f"{shared} of {len(test)} test images are training images" if shared else None


def _labels_are_classes(subject: _Subject) -> str:
    train, test = subject.data.train.labels, subject.data.test.labels
    if train is None and test is None:
        raise NotApplicableError("the dataset has no labels")
    require(
        train is not None and test is not None,
        "one split has labels and the other None: give labels of both, or of neither",
    )
    assert train is not None
    assert test is not None
    unknown = sorted(set(test.tolist()) - set(train.tolist()))
    require(
        not unknown,
        f"the test labels {', '.join(map(str, unknown[:5]))} are no training labels: number the "
        "classes of both splits in the same way",
    )
    require(train.min() >= 0, f"a label is {train.min()}; number the classes from 0")
    return f"{len(np.unique(train))} classes"


def _same_labels(one: Split, other: Split) -> bool:
    if one.labels is None or other.labels is None:
        return one.labels is other.labels
    return np.array_equal(one.labels, other.labels)


def _keys(split: Split) -> set[bytes]:
    return {image.tobytes() for image in split.images}


_CHECKS: dict[str, Callable[[_Subject], str | None]] = {
    "declares name, source and licence": _declares_itself,
    "two descriptions are equal, with one fingerprint": _describes_itself_twice,
    "loads uint8 images as it describes them": _loads_as_described,
    "two loads are equal": _loads_twice,
    "the images of a split differ": _differs_within,
    "the splits share no images": _splits_are_disjoint,
    "labels are classes from 0": _labels_are_classes,
}
