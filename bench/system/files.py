"""Files that appear whole or not at all, their checksums, and locks."""

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under ``path`` whole, once the block has ended, or not at all.

    Its permissions are those of any new file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def leftovers(folder: Path, below: bool = True) -> list[Path]:
    """What :func:`atomic` left in a folder, and below it, when its process died.

    It may also be writing now: only who keeps others out can tell.
    """
    found = folder.rglob(".*") if below else folder.glob(".*")
    return sorted(path for path in found if _TEMPORARY.fullmatch(path.name))


def remove_leftovers(folder: Path, below: bool = True) -> None:
    """Delete the :func:`leftovers` in a folder."""
    for path in leftovers(folder, below):
        path.unlink(missing_ok=True)


def lock(path: Path) -> FileLock:
    """A lock that one process at a time holds; the system frees it when its process dies.

    The file stays: that it exists says nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def _sync_folder(folder: Path) -> None:
    """Let a new name outlast a power cut, where the system lets folders be synchronised."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    with atomic(path) as file:
        file.write(json.dumps(content, indent=2).encode())


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
