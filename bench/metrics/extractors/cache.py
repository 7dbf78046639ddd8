"""Features of reference images on disk, found by their content and never by a name."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from bench.files import atomic


def cached_features(
    folder: Path, content: Mapping[str, object], compute: Callable[[], Mapping[str, Tensor]]
) -> dict[str, np.ndarray]:
    """Arrays by name, computed once for each ``content``.

    An entry that is truncated or altered, which its checksums tell, is computed anew; a folder
    that cannot be written costs the computation each time.
    """
    canonical = json.dumps(dict(content), sort_keys=True)
    entry = folder / hashlib.sha256(canonical.encode()).hexdigest()
    stored = _read(entry)
    if stored is not None:
        return stored
    arrays = {name: tensor.numpy() for name, tensor in compute().items()}
    try:
        _write(entry, dict(content), arrays)
    except OSError:
        return arrays
    return arrays


def _write(entry: Path, content: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> None:
    checksums = {}
    for name, array in arrays.items():
        with atomic(entry / f"{name}.npy") as file:
            np.save(file, array, allow_pickle=False)
        checksums[name] = _checksum(entry / f"{name}.npy")
    # Written last: where it stands, the entry is complete.
    with atomic(entry / "content.json") as file:
        file.write(json.dumps({"content": content, "sha256": checksums}, indent=2).encode())


def _read(entry: Path) -> dict[str, np.ndarray] | None:
    try:
        listed = json.loads((entry / "content.json").read_text(encoding="utf-8"))["sha256"]
        if any(_checksum(entry / f"{name}.npy") != sha for name, sha in listed.items()):
            return None
        # Copy-on-write: pages are read when they are needed.
        return {name: np.load(entry / f"{name}.npy", mmap_mode="c") for name in listed}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
