"""Reference statistics in a file: mean and covariance of features, as other programs keep them.

A ``.npz`` file holds ``mu`` ``(D,)`` and ``sigma`` ``(D, D)``, the unbiased covariance, as
pytorch-fid and clean-fid read and write them. Our own files also say where they come from, in the
text ``provenance``.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.errors import BenchError, one_line
from bench.system.files import atomic, unchanged
from bench.system.paths import StatisticsFile

SUFFIX = ".npz"
SHA256_DIGITS = 16
# Two entries of a covariance that should be equal differ by rounding only.
ASYMMETRY = 1e-4


@dataclass(frozen=True)
class Provenance:
    """The origin of statistics.

    Attributes:
        source: dataset, folder or file of the images.
        split: split of the dataset; None for images that were given.
        images: number of images.
        extractor: registered name of the extractor.
        description: description of the extractor, preprocessing included.
        extractor_sha256: SHA-256 of the extractor's weights, in hex.
    """

    source: str
    split: str | None
    images: int
    extractor: str
    description: str
    extractor_sha256: str

    def __str__(self) -> str:
        """Return source, split and number of images."""
        split = f" {self.split}" if self.split else ""
        return f"{self.source}{split}, {self.images} images"


@dataclass(frozen=True)
class ReferenceStatistics:
    """Mean and covariance of the features of reference images.

    Attributes:
        mean: mean ``(D,)``, float64.
        covariance: unbiased covariance ``(D, D)``, float64.
        provenance: where they come from; None if the file does not say it.
    """

    mean: np.ndarray
    covariance: np.ndarray
    provenance: Provenance | None


def write_statistics(statistics: ReferenceStatistics, out: Path) -> None:
    """Write statistics to a ``.npz`` file, which pytorch-fid and clean-fid can read."""
    provenance = asdict(statistics.provenance) if statistics.provenance else None
    told = np.array(json.dumps(provenance))
    with atomic(out) as file:
        np.savez(file, mu=statistics.mean, sigma=statistics.covariance, provenance=told)


def read_statistics(path: Path) -> ReferenceStatistics:
    """Read statistics from a ``.npz`` file. Python objects in it are not unpickled.

    Raises:
        BenchError: the file cannot be read, or holds something else.
    """
    try:
        with unchanged([path]), np.load(io.BytesIO(path.read_bytes())) as arrays:
            mean, covariance = _checked(arrays)
            told = json.loads(str(arrays["provenance"])) if "provenance" in arrays else None
            provenance = None if told is None else Provenance(**told)
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {one_line(error)}") from error
    except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BenchError(
            f"{path} holds no reference statistics, which are the arrays mu (D,) and sigma (D, D): "
            f"{one_line(error)}"
        ) from error
    return ReferenceStatistics(mean, covariance, provenance)


def described(file: StatisticsFile, statistics: ReferenceStatistics) -> str:
    """Return where statistics come from, for the column ``extractor``.

    Args:
        file: the file of the statistics.
        statistics: its content.
    """
    origin = statistics.provenance or file.path.name
    return f"reference statistics of {origin} (SHA-256 {shown_sha256(file)})"


def shown_sha256(file: StatisticsFile) -> str:
    """Return the first digits of the file's SHA-256, as in the column ``extractor``."""
    return file.sha256[:SHA256_DIGITS]


def _checked(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    mean, covariance = (np.asarray(arrays[name], np.float64) for name in ("mu", "sigma"))
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not len(mean):
        raise ValueError(f"mu has the shape {mean.shape}, sigma {covariance.shape}")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError("a value is not finite")
    if np.abs(covariance - covariance.T).max() > ASYMMETRY * np.abs(covariance).max():
        raise ValueError("sigma is not symmetric")
    if covariance.diagonal().min() < 0:
        raise ValueError("a variance in sigma is negative")
    return mean, covariance
