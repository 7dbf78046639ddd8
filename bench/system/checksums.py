"""A folder that knows the SHA-256 of its files, so that damage is never taken for content."""

import hashlib
import io
import re
from collections.abc import Callable, Iterator
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
    """A file does not hold what was written to it."""


class SummedFolder:
    """Files whose SHA-256 stand in ``SHA256SUMS``, as ``sha256sum --check`` reads it.

    Before a file is replaced its new sum is put beside the old one; so, whenever the process dies,
    each file matches one of its sums. A file without any, as older releases left it, is taken as
    it is. One process at a time may write.

    Attributes:
        path: of the folder, which may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self, name: str) -> bool:
        """Whether there is such a file, damaged or not."""
        return (self.path / name).exists()

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            DamagedFileError: it is not what was written.
            FileNotFoundError: there is no such file.
        """
        return self._undamaged(name, Path.read_bytes, _sha256)

    @contextmanager
    def write(self, name: str) -> Iterator[io.BytesIO]:
        """A file to fill, which appears under ``name`` whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        buffer = io.BytesIO()
        yield buffer
        with writing(self.path / name):
            self._write(name, buffer.getbuffer())

    def remove(self, name: str) -> None:
        """Delete a file and its sum, if there is one.

        Raises:
            OutputError: it cannot be deleted.
        """
        with writing(self.path / name):
            (self.path / name).unlink(missing_ok=True)
            self._forget(name)

    def damaged(self) -> list[str]:
        """The names of the files that are not what was written, in order."""
        found = []
        for name in sorted(self.sums()):
            try:
                self._undamaged(name, file_sha256, str)
            except FileNotFoundError:
                continue
            except DamagedFileError:
                found.append(name)
        return found

    def set_aside(self, name: str) -> None:
        """Put ``.damaged`` behind the name of a file.

        Raises:
            OutputError: it cannot be renamed.
        """
        with writing(self.path / name):
            (self.path / name).replace(self.path / f"{name}{SET_ASIDE}")
            self._forget(name)

    def sums(self) -> dict[str, set[str]]:
        """By file name: the SHA-256 that it may have, as 64 hex digits."""
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
        """What is read of a file, once its sum is one of those that the file may have.

        Another process may replace the file after it was read and before its sums are: so it is
        damaged only if it is still the same when it is read again.
        """
        path = self.path / name
        content = read(path)
        while (found := digest(content)) not in self.sums().get(name, {found}):
            before, content = content, read(path)
            if content == before:
                raise DamagedFileError(
                    f"{path} is damaged: its SHA-256 {found} is not in {SUMS_FILE}"
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


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell in one line, as an :class:`OutputError`, that ``path`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}. What is finished is kept: "
            "make room, or see to the permissions, and run the same command again."
        ) from error
