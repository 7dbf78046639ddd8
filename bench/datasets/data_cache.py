"""A cache file for arrays that are slow to prepare."""

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

Arrays = Mapping[str, np.ndarray]


def cached(path: Path, names: Iterable[str], build: Callable[[], Arrays]) -> Arrays:
    """Load arrays by name from a cache file, or build them and write the file.

    A corrupt file is replaced. If the file cannot be written, the arrays are returned all the same.

    Args:
        path: ``.npz`` file of the cache, which need not exist yet.
        names: names of the arrays.
        build: function that returns the arrays, each ``(N, C, H, W)``, by the name of the split.

    Returns:
        The arrays, each ``(N, C, H, W)``, by the name of the split.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    except Exception:  # missing, or corrupt: NumPy, zipfile and zlib raise different types
        arrays = build()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            temporary = Path(folder, path.name)
            np.savez(temporary, allow_pickle=False, **arrays)
            temporary.replace(path)
    return arrays
