"""A folder that records the SHA-256 of its files, so that damaged files are detected."""

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from bench.errors import OutputError
from bench.system.files import atomic, file_sha256

SUMS_FILE = "SHA256SUMS"
SET_ASIDE = ".damaged"
T = TypeVar("T")
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


class DamagedFileError(Exception):
    """The content of a file does not match its recorded SHA-256."""


class SummedFolder:
    """A folder with the SHA-256 of its files in ``SHA256SUMS``, which ``sha256sum --check`` reads.

    Before a file is replaced, its new sum is added to the old one. Each file therefore matches one
    of its sums, even if the process dies halfway. A file without a sum, written by an older
    release, is accepted without a check. Only one process may write at a time.

    Attributes:
        path: the folder, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self, name: str) -> bool:
        """Return True if the file exists, damaged or not."""
        return (self.path / name).exists()

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            DamagedFileError: if the content does not match the recorded SHA-256.
            FileNotFoundError: if the file does not exist.
        """
        return self._undamaged(name, Path.read_bytes, _sha256)

    @contextmanager
    def write(self, name: str) -> Iterator[io.BytesIO]:
        """Open a buffer whose content becomes the file ``name`` when the block ends.

        If the block raises, the file and its sum stay as they were.

        Raises:
            OutputError: if the file cannot be written.
        """
        buffer = io.BytesIO()
        yield buffer
        with writing(self.path / name):
            self._write(name, buffer.getbuffer())

    def remove(self, name: str) -> None:
        """Delete a file and its sum; do nothing if the file does not exist.

        Raises:
            OutputError: if the file cannot be deleted.
        """
        with writing(self.path / name):
            (self.path / name).unlink(missing_ok=True)
            self._forget(name)

    def damaged(self) -> list[str]:
        """Return the sorted names of the files that do not match their recorded SHA-256."""
        names = []
        for name in sorted(self.sums()):
            try:
                self._undamaged(name, file_sha256, str)
            except FileNotFoundError:
                continue
            except DamagedFileError:
                names.append(name)
        return names

    def set_aside(self, name: str) -> None:
        """Rename a file to ``<name>.damaged`` and forget its sum.

        Raises:
            OutputError: if the file cannot be renamed.
        """
        with writing(self.path / name):
            (self.path / name).replace(self.path / f"{name}{SET_ASIDE}")
            self._forget(name)

    def sums(self) -> dict[str, set[str]]:
        """Return the valid SHA-256 sums of each file name, as 64 hex digits."""
        path = self.path / SUMS_FILE
        sums: dict[str, set[str]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                if match := _LINE.fullmatch(line):
                    sums.setdefault(match[2], set()).add(match[1])
        return sums

    def _write(self, name: str, content: memoryview) -> None:
        digest = hashlib.sha256(content).hexdigest()
        sums = self.sums()
        before = sums.get(name, set())
        self._write_sums({**sums, name: before | {digest}})
        with atomic(self.path / name) as file:
            file.write(content)
        if before - {digest}:
            self._write_sums({**sums, name: {digest}})

    def _undamaged(self, name: str, read: Callable[[Path], T], digest: Callable[[T], str]) -> T:
        """Return the result of ``read``, once its digest is one of the file's valid sums.

        Another process can replace the file between the reading of the file and of its sums. The
        file is therefore damaged only if a second reading gives the same wrong digest.
        """
        path = self.path / name
        content = read(path)
        while (actual := digest(content)) not in self.sums().get(name, {actual}):
            before, content = content, read(path)
            if content == before:
                raise DamagedFileError(
                    f"{path} is damaged: its SHA-256 {actual} is not in {SUMS_FILE}"
                )
        return content

    def _forget(self, name: str) -> None:
        sums = self.sums()
        if sums.pop(name, None) is not None:
            self._write_sums(sums)

    def _write_sums(self, sums: dict[str, set[str]]) -> None:
        lines = [f"{digest}  {name}\n" for name in sorted(sums) for digest in sorted(sums[name])]
        with atomic(self.path / SUMS_FILE) as file:
            file.write("".join(lines).encode())


def content_key(content: Mapping[str, object]) -> str:
    """Return the SHA-256 of JSON values by name, in hex; the order of the names does not matter.

    >>> content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    True
    """
    return _sha256(json.dumps(content, sort_keys=True).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the block into an :class:`OutputError` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}. Finished results are kept: "
            "free disk space or fix the permissions, then run the same command again."
        ) from error
