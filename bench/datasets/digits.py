"""Digits: the 8x8 digits included in scikit-learn, available without a network."""

import numpy as np

from bench.datasets.dataset import Split, Variant
from bench.datasets.preprocessing import SEED, InMemoryDataset


class Digits(InMemoryDataset):
    """1,797 grey 8x8 handwritten digits included in scikit-learn, for runs without a network.

    Pixels 0..16 are scaled to 0..255. There is no official split: scikit-learn's stratified
    ``train_test_split(random_state=0)`` draws 80 % for training (1,437) and 20 % for testing (360).
    """

    name = "digits"
    source = (
        "scikit-learn's load_digits: the test set of Alpaydin and Kaynak (1998), Optical "
        "Recognition of Handwritten Digits, UCI, https://doi.org/10.24432/C50P49; "
        "split 80/20 with random_state=0"
    )
    licence = "CC BY 4.0"

    def missing(self) -> str | None:
        """Return None: the images are part of scikit-learn."""
        return None

    def fetch(self) -> None:
        """Do nothing: the images are part of scikit-learn."""

    def read(self) -> tuple[Split, Split]:
        """Return both splits, with images ``(N, 8, 8)`` uint8 and labels ``(N,)`` in 0..9."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        labels = digits.target.astype(np.int64)
        parts = train_test_split(images, labels, test_size=0.2, random_state=SEED, stratify=labels)
        train_images, test_images, train_labels, test_labels = parts
        return Split(train_images, train_labels), Split(test_images, test_labels)

    def variant(self, train: Split, test: Split) -> Variant:
        """Return ``complete``."""
        return "complete"
