"""Datasets that are right, and datasets that are wrong in one way each."""

import numpy as np
import pytest

from bench.datasets.dataset import Split
from bench.datasets.preprocessing import InMemoryDataset
from bench.errors import DataUnavailableError
from bench.testing import check_dataset, dataset_checks


class Good(InMemoryDataset):
    """Random images."""

    name, source, licence = "good", "drawn", "CC0"
    seed = 0

    def missing(self):
        return None

    def fetch(self):
        pass

    def read(self):
        draws = np.random.default_rng(self.seed)
        images = draws.integers(0, 256, (60, 8, 8), dtype=np.uint8)
        return Split(images[:40], np.arange(40) % 4), Split(images[40:], np.arange(20) % 4)

    def variant(self, train, test):
        return "complete"


class Changing(Good):
    seed = None


class Overlapping(Good):
    def read(self):
        train, test = super().read()
        return train, Split(train.images[:20], test.labels)


class Repeating(Good):
    def read(self):
        train, test = super().read()
        return Split(train.images[:1].repeat(40, axis=0), train.labels), test


class Floats(Good):
    def read(self):
        train, test = super().read()
        return Split(train.images / 255, train.labels), test


class Classless(Good):
    def read(self):
        train, test = super().read()
        return train, Split(test.images, test.labels + 4)


class Halved(Good):
    def read(self):
        train, test = super().read()
        return train, Split(test.images, None)


class Unlicensed(Good):
    licence = ""


class Absent(Good):
    def missing(self):
        return "looked for good.npz"


WRONG = {
    Changing: ("two descriptions", "its content changes from reading to reading"),
    Overlapping: ("the splits share", "20 of 20 test images are among the training images"),
    Repeating: ("the images of a split", "only 1 of 40 train images differ"),
    Floats: ("loads uint8", "the train images are a float64 ndarray"),
    Classless: ("labels", "the test labels 4, 5, 6, 7 are no training labels"),
    Halved: ("labels", "one split has labels and the other None"),
    Unlicensed: ("declares", "the attribute licence of Unlicensed is ''"),
}


def test_a_good_dataset_passes_every_check(tmp_path):
    assert {each.outcome for each in check_dataset(Good, tmp_path)} == {"passed"}


@pytest.mark.parametrize("dataset", WRONG, ids=lambda cls: cls.__name__)
def test_a_wrong_dataset_fails_its_check_and_is_told_why(dataset, tmp_path):
    check, words = WRONG[dataset]
    (result,) = (each for each in check_dataset(dataset, tmp_path) if each.check.startswith(check))
    assert result.outcome == "failed"
    assert words in result.message


def test_a_dataset_that_is_not_here_cannot_be_checked(tmp_path):
    with pytest.raises(DataUnavailableError, match=r"looked for good\.npz.*bench data fetch good"):
        check_dataset(Absent, tmp_path)


@pytest.mark.parametrize("check", dataset_checks("digits"), ids=str)
def test_checks_are_tests_of_pytest(check):
    check()
