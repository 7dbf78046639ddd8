"""Atomic writing of files, their checksums, and locks."""

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from bench.errors import BenchError

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary binary file that is renamed to ``path`` when the block ends.

    If the block raises, ``path`` stays as it was. The file gets the default permissions.
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
    """Return the temporary files that :func:`atomic` left behind when its process died.

    Files that another process is writing now are included, so hold the folder's lock.

    Args:
        folder: the folder to search.
        below: True to search its subfolders too.
    """
    hidden = folder.rglob(".*") if below else folder.glob(".*")
    return sorted(path for path in hidden if _TEMPORARY.fullmatch(path.name))


def remove_leftovers(folder: Path, below: bool = True) -> None:
    """Delete the :func:`leftovers` of a folder."""
    for path in leftovers(folder, below):
        path.unlink(missing_ok=True)


def lock(path: Path) -> FileLock:
    """Return a lock that one process at a time can hold.

    The operating system releases it when the process dies. The lock file stays in place: its
    existence does not mean that the lock is held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def _sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk on POSIX, so that a new file survives a power cut."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` to ``path`` as JSON, atomically."""
    with atomic(path) as file:
        file.write(json.dumps(content, indent=2).encode())


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def unchanged(paths: Iterable[Path]) -> Iterator[None]:
    """Check that files are the same at the end of the context.

    Raises:
        BenchError: one was written to, or is gone.
    """
    before = {path: _state(path) for path in paths}
    yield
    for path, state in before.items():
        if _state(path) != state:
            raise BenchError(f"{path} changed while it was read.")


def _state(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns
