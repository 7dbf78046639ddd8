"""A file that keeps two arrays that are slow to prepare."""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]


def cached(path: Path, build: Callable[[], Pair]) -> Pair:
    """The train and test arrays in the ``.npz`` file at ``path``, else built and kept there.

    A corrupt file is rebuilt; where the file cannot be written, nothing is kept.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return stored["train"], stored["test"]
    except Exception:  # absent, or corrupt in one of many ways: numpy, zipfile, zlib, ...
        train, test = build()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            temporary = Path(folder, path.name)
            np.savez(temporary, train=train, test=test)
            temporary.replace(path)
    return train, test
