"""Where datasets, weights and what is computed once live."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from bench.errors import BenchError

VARIABLE = "BENCH_DATA_ROOT"
CACHE_VARIABLE = "BENCH_CACHE"
APPLICATION = "spikegen-bench"


def data_root(asked: str | Path | None) -> Path:
    """The data root: as asked, else from the environment, else the user's cache folder.

    Raises:
        BenchError: one was named that is missing, no folder, or unreadable.
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
class Resources:
    """Where metrics find what they need beside images.

    Attributes:
        data_root: of the datasets, and of files that belong to them.
        weights: weight files given by hand, by the name of what they are for.
        cache: folder for what is fetched or computed once; it may not exist yet.
    """

    data_root: Path
    weights: Mapping[str, Path]
    cache: Path


def cache_folder() -> Path:
    """The folder for what is fetched or computed once: from the environment, else the user's."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else user_cache_path(APPLICATION)


def weight_files(given: Iterable[str]) -> dict[str, Path]:
    """``["inception=FILE"]`` as paths by name.

    Raises:
        BenchError: no such form, or no such file.
    """
    files = {}
    for item in given:
        name, separator, path = item.partition("=")
        if not separator or not name.strip() or not path.strip():
            raise BenchError(f"--weights {item!r}: expected NAME=PATH, for example inception=FILE.")
        files[name.strip()] = Path(path.strip()).expanduser()
        if not files[name.strip()].is_file():
            raise BenchError(f"--weights {item!r}: there is no such file.")
    return files
