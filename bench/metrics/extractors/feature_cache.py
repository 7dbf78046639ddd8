"""A cache of reference features on disk, keyed by a hash of all that they depend on."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from torch import Tensor

from bench.system.checksums import content_key
from bench.system.files import atomic, file_sha256, lock, write_json

LOCK_FILE = ".lock"


def cached_features(
    folder: Path, content: Mapping[str, object], compute: Callable[[], Mapping[str, Tensor]]
) -> dict[str, np.ndarray]:
    """Return arrays from the cache, computing and storing them if they are missing.

    An entry whose checksums do not match is computed again. If the folder is not writable, the
    arrays are computed on every call.

    Args:
        folder: folder of the cache; created if necessary.
        content: everything that the arrays depend on, as JSON values; the key of the entry.
        compute: returns the tensors ``(N, ...)`` by name.

    Returns:
        The arrays ``(N, ...)`` by name, memory-mapped if they come from the cache.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     stored = cached_features(Path(folder), {"seed": 0}, lambda: {"pool": torch.ones(2)})
    ...     again = cached_features(Path(folder), {"seed": 0}, lambda: {"pool": torch.zeros(2)})
    ...     again["pool"].tolist()
    [1.0, 1.0]
    """
    entry = entry_folder(folder, content)
    with alone(entry):
        stored = _read(entry)
        if stored is not None:
            return stored
        arrays = {name: tensor.numpy() for name, tensor in compute().items()}
        with contextlib.suppress(OSError):
            _write(entry, content, arrays)
    return arrays


@contextmanager
def alone(entry: Path) -> Iterator[None]:
    """Hold the lock of an entry against other processes, if its folder is writable."""
    with ExitStack() as held:
        with contextlib.suppress(OSError):
            held.enter_context(lock(entry / LOCK_FILE))
        yield


def entry_folder(folder: Path, content: Mapping[str, object]) -> Path:
    """Return the subfolder of ``folder`` for the given content, named by its SHA-256."""
    return folder / content_key(content)


def _write(entry: Path, content: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> None:
    checksums = {}
    for name, array in arrays.items():
        with atomic(entry / f"{name}.npy") as file:
            np.save(file, array, allow_pickle=False)
        checksums[name] = file_sha256(entry / f"{name}.npy")
    # Written last: its presence marks a complete entry.
    write_json(entry / "content.json", {"content": content, "sha256": checksums})


def _read(entry: Path) -> dict[str, np.ndarray] | None:
    try:
        listed = json.loads((entry / "content.json").read_text(encoding="utf-8"))["sha256"]
        if any(file_sha256(entry / f"{name}.npy") != sha for name, sha in listed.items()):
            return None
        # Memory-mapped, copy-on-write: pages are read from disk on access.
        return {name: np.load(entry / f"{name}.npy", mmap_mode="c") for name in listed}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
