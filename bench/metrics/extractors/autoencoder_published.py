"""Autoencoders and reference statistics published with FSVAE's official code."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.errors import BenchError
from bench.metrics.extractors.extractor import ExtractorContext
from bench.metrics.extractors.weights import WeightFile
from bench.system.files import file_sha256
from bench.system.paths import Resources


@dataclass(frozen=True)
class Published:
    """A published autoencoder for one dataset.

    Attributes:
        name: name of the dataset in the file names.
        fingerprint: hash of the dataset that the autoencoder was trained on.
        weights_sha256: SHA-256 of the file with the weights, in hex.
        statistics_sha256: SHA-256 of the file with the test set's mean and covariance, in hex.
    """

    name: str
    fingerprint: str
    weights_sha256: str
    statistics_sha256: str

    @property
    def weights(self) -> Path:
        """File with the weights, relative to the data root."""
        return Path("fad", "stat_checkpoints", f"{self.name}_64.pth")

    @property
    def statistics(self) -> Path:
        """File with the test set's statistics, relative to the data root."""
        return Path("fad", "stats", f"{self.name}_test_64.npz")


PUBLISHED = {
    "mnist": Published(
        "mnist",
        "f54a4c80fe7308ac11d5a7e3991091acb206a045b139f11750ee1f43d963b166",
        "783abf13264663769f4936b30902adeb29dfda02a862bd9c8c5c8098e464333b",
        "5d4dd72f345b4337af8ca3432dcf53e4b4b6e8f218aace6abd26dd0181473f20",
    ),
    "fashion_mnist": Published(
        "fashion",
        "b3ceca0452db0a149bf60a393f095ba311172cfb81297a11fa3b9eb7ff3a3df0",
        "234f4335d9da9417abcede41f0a4d4663ba91ee46f67cdd160b62d7a200689e8",
        "c3a0b1ff9340f947d8316d33d0f27cd5a565c007bc63ebdd88de0ff91f558645",
    ),
}


@dataclass(frozen=True, kw_only=True)
class PublishedWeights(WeightFile):
    """The weights of a published autoencoder.

    Attributes:
        file: path of the file below the data root.
    """

    file: Path

    @property
    def advice(self) -> str:
        """Sentences that say how to get the file, and what happens without it."""
        return (
            f"It is {self.file.name} in FSVAE's official code (arXiv:2110.00375): put it there, or "
            f"give it with --weights {self.name}=FILE. Without it, a run trains an autoencoder."
        )

    def default_path(self, resources: Resources) -> Path:
        """Return the path of the file below the data root."""
        return resources.data_root / self.file


WEIGHT_FILES = {
    dataset: PublishedWeights(
        name=f"fad_{dataset}", sha256=published.weights_sha256, file=published.weights
    )
    for dataset, published in PUBLISHED.items()
}


def published_weights(context: ExtractorContext) -> Path | None:
    """Return the file with the published weights, or None if it is missing or does not apply.

    The weights apply to the real MNIST and Fashion-MNIST, not cropped, resized to 32x32 bilinearly.
    A file given with ``--weights`` takes precedence over the one under the data root.

    Raises:
        BenchError: the file has the wrong checksum.
    """
    published, protocol = PUBLISHED.get(context.dataset), context.protocol
    preprocessing = (protocol.image_size, protocol.center_crop, protocol.interpolation)
    if published is None or context.fingerprint != published.fingerprint:
        return None
    if preprocessing != (32, None, "bilinear"):
        return None
    path = WEIGHT_FILES[context.dataset].path(context.resources)
    return _checked(path, published.weights_sha256)


def published_statistics(context: ExtractorContext) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the published mean ``(D,)`` and covariance ``(D, D)`` of the test set's latents.

    The result is None if the published weights are not in use, the reference is not the test split,
    or the file is missing.

    Raises:
        BenchError: the file has the wrong checksum.
    """
    if published_weights(context) is None or context.protocol.reference_split != "test":
        return None
    published = PUBLISHED[context.dataset]
    path = _checked(context.resources.data_root / published.statistics, published.statistics_sha256)
    if path is None:
        return None
    with np.load(path, allow_pickle=False) as stored:
        return stored["mu"].astype(np.float64), stored["sigma"].astype(np.float64)


def _checked(path: Path, sha256: str) -> Path | None:
    """Return the path if its checksum is right; None if there is no such file."""
    if not path.exists():
        return None
    actual = file_sha256(path)
    if actual != sha256:
        raise BenchError(
            f"{path} is not the published file: its SHA-256 is {actual}, expected {sha256}. "
            "Replace or remove it."
        )
    return path
