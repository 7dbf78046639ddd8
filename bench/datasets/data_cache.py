"""A cache file for a pair of arrays that are slow to prepare."""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]


def cached(path: Path, build: Callable[[], Pair]) -> Pair:
    """Load a train and a test array from a cache file, or build them and write the file.

    A corrupt file is replaced. If the file cannot be written, the arrays are returned all the same.

    Args:
        path: ``.npz`` file of the cache, which need not exist yet.
        build: function that returns the two arrays, each ``(N, C, H, W)``.

    Returns:
        The train and the test array, each ``(N, C, H, W)``.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return stored["train"], stored["test"]
    except Exception:  # missing, or corrupt: NumPy, zipfile and zlib raise different types
        train, test = build()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            temporary = Path(folder, path.name)
            np.savez(temporary, train=train, test=test)
            temporary.replace(path)
    return train, test
