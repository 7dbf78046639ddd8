"""Features of reference images on disk, found by their content and never by a name."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from torch import Tensor

from bench.system.files import atomic, file_sha256, lock, write_json

LOCK_FILE = ".lock"


def cached_features(
    folder: Path, content: Mapping[str, object], compute: Callable[[], Mapping[str, Tensor]]
) -> dict[str, np.ndarray]:
    """Arrays by name, computed once for each ``content``.

    An entry that is truncated or altered, which its checksums tell, is computed anew; a folder
    that cannot be written costs the computation each time.
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
    """Let other processes wait that want the same entry, if its folder can be written."""
    with ExitStack() as held:
        with contextlib.suppress(OSError):
            held.enter_context(lock(entry / LOCK_FILE))
        yield


def entry_folder(folder: Path, content: Mapping[str, object]) -> Path:
    """Where in ``folder`` what depends on ``content`` alone is kept."""
    canonical = json.dumps(content, sort_keys=True)
    return folder / hashlib.sha256(canonical.encode()).hexdigest()


def _write(entry: Path, content: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> None:
    checksums = {}
    for name, array in arrays.items():
        with atomic(entry / f"{name}.npy") as file:
            np.save(file, array, allow_pickle=False)
        checksums[name] = file_sha256(entry / f"{name}.npy")
    # Written last: where it stands, the entry is complete.
    write_json(entry / "content.json", {"content": content, "sha256": checksums})


def _read(entry: Path) -> dict[str, np.ndarray] | None:
    try:
        listed = json.loads((entry / "content.json").read_text(encoding="utf-8"))["sha256"]
        if any(file_sha256(entry / f"{name}.npy") != sha for name, sha in listed.items()):
            return None
        # Copy-on-write: pages are read when they are needed.
        return {name: np.load(entry / f"{name}.npy", mmap_mode="c") for name in listed}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
