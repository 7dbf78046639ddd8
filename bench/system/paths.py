"""Paths of datasets, weight files and cached results."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_cache_path

from bench.errors import BenchError

VARIABLE = "BENCH_DATA_ROOT"
CACHE_VARIABLE = "BENCH_CACHE"
APPLICATION = "spikegen-bench"


def data_root(asked: str | Path | None) -> Path:
    """Return the data root: ``asked``, else ``BENCH_DATA_ROOT``, else the user's cache folder.

    Raises:
        BenchError: if the named data root is missing, not a folder, or unreadable.
    """
    named = asked or os.environ.get(VARIABLE)
    if not named:
        return user_cache_path(APPLICATION) / "data"
    root = Path(named).expanduser()
    if not root.exists():
        raise BenchError(f"The data root {root} does not exist: create it with mkdir -p {root}")
    if not root.is_dir():
        raise BenchError(f"The data root {root} is not a directory.")
    if not os.access(root, os.R_OK | os.X_OK):
        raise BenchError(f"The data root {root} cannot be read: check its permissions.")
    return root


@dataclass(frozen=True)
class TrainedFile:
    """A file with the weights of a trained extractor.

    Attributes:
        path: path of the file.
        dataset: name of the dataset.
        sha256: SHA-256 of the weights in hex, as in the column ``extractor_sha256``.
    """

    path: Path
    dataset: str
    sha256: str


@dataclass(frozen=True)
class StatisticsFile:
    """A file with reference statistics, see ``bench.metrics.extractors.reference_statistics``.

    Attributes:
        path: path of the file.
        sha256: SHA-256 of the file in hex.
    """

    path: Path
    sha256: str


@dataclass(frozen=True)
class Resources:
    """Folders and files that metrics need in addition to images.

    Attributes:
        data_root: folder of the datasets and of the files that belong to them.
        weights: weight files given by the user, by name (for example ``inception``).
        cache: folder for files that are downloaded or computed once; it need not exist yet.
        trained: weights of trained extractors to use instead of training, by the name that
            :func:`bench.store.trained_weights.weights_name` gives them.
        statistics: reference statistics to compare with instead of the reference images, by the
            registered name of the extractor that made them.
    """

    data_root: Path
    weights: Mapping[str, Path]
    cache: Path
    trained: Mapping[str, TrainedFile] = field(default_factory=dict)
    statistics: Mapping[str, StatisticsFile] = field(default_factory=dict)


def cache_folder() -> Path:
    """Return the cache folder: ``BENCH_CACHE``, else the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else user_cache_path(APPLICATION)


def safe_name(name: str) -> str:
    """Return a name that is valid on any file system, without separators or a leading dot.

    >>> safe_name("../mine: epochs=3")
    '_mine_epochs=3'
    """
    return re.sub(r"[^A-Za-z0-9_.+=-]+", "_", name).lstrip(".")[:120]


def weight_files(given: Iterable[str]) -> dict[str, Path]:
    """Parse ``NAME=PATH`` pairs into absolute paths by name.

    Raises:
        BenchError: if a pair has another form, or its file does not exist.

    >>> weight_files([])
    {}
    >>> weight_files(["inception"])
    Traceback (most recent call last):
    bench.errors.BenchError: --weights 'inception': expected NAME=PATH, for example inception=FILE.
    """
    files = {}
    for item in given:
        name, separator, path = item.partition("=")
        if not separator or not name.strip() or not path.strip():
            raise BenchError(f"--weights {item!r}: expected NAME=PATH, for example inception=FILE.")
        files[name.strip()] = Path(path.strip()).expanduser().absolute()
        if not files[name.strip()].is_file():
            raise BenchError(f"--weights {item!r}: the file does not exist.")
    return files
