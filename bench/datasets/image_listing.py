"""Listing of the image files in a folder, and of everything in it that is left out."""

import inspect
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image, ImageFile

from bench.errors import DataUnavailableError

SERVICE_FOLDERS = {
    "@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN", "__MACOSX", "lost+found",
    "System Volume Information",
}  # fmt: skip
HIDDEN, SERVICE = "hidden", "in folders of the system"
BROKEN, CIRCLE, NO_SUFFIX = "broken links", "links in a circle", "without a suffix"
# PIL recognises these formats without decoding them.
UNDECODED = {"MPEG"}
CONVERT = {".heic", ".heif"}


class LeftOut:
    """Files and folders that are no part of a dataset, by the reason why.

    >>> left_out = LeftOut()
    >>> left_out.add(".txt", Path("readme.txt"))
    >>> left_out.add(".txt", Path("notes.txt"))
    >>> str(left_out)
    '2 .txt (notes.txt, ...)'
    """

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, name: Path) -> None:
        """Add a file or folder.

        Args:
            reason: suffix of the file, or another reason to leave it out.
            name: path within the folder.
        """
        self._names[reason].append(name.as_posix())

    def __bool__(self) -> bool:
        return bool(self._names)

    def __str__(self) -> str:
        parts = []
        for reason, names in sorted(self._names.items()):
            convert = ", convert to PNG or JPEG" if reason in CONVERT else ""
            more = ", ..." if len(names) > 1 else ""
            parts.append(f"{len(names)} {reason} ({min(names)}{more}{convert})")
        return ", ".join(parts)


def list_images(root: Path, within: Path, left_out: LeftOut) -> list[Path]:
    """List the image files in a folder and its subfolders, links included.

    Args:
        root: folder of the dataset.
        within: path of the folder to list within the root.
        left_out: receiver of everything that is not an image file.

    Returns:
        Paths within the listed folder, sorted.

    Raises:
        DataUnavailableError: if a folder cannot be read.
    """
    found = _images(root, within, (), left_out)
    return sorted((path.relative_to(within) for path in found), key=Path.as_posix)


def is_hidden(name: str) -> str | None:
    """Return why a file or folder of this name is no part of a dataset; None if it is one.

    >>> is_hidden(".DS_Store"), is_hidden("@eaDir"), is_hidden("cat.png")
    ('hidden', 'in folders of the system', None)
    """
    if name in SERVICE_FOLDERS:
        return SERVICE
    return HIDDEN if name.startswith(".") else None


def _images(
    root: Path, folder: Path, parents: tuple[Path, ...], left_out: LeftOut
) -> Iterator[Path]:
    """Yield the paths of a folder's images within the root, and count the rest.

    Args:
        root: folder that is listed.
        folder: path of the current folder within the root.
        parents: real paths of the folders that lead to this one.
        left_out: receiver of everything that is not an image file.
    """
    try:
        entries = sorted((root / folder).iterdir())
    except OSError as error:
        raise DataUnavailableError(f"{root / folder} cannot be read: {error.strerror}.") from error
    parents = (*parents, (root / folder).resolve())
    for path in entries:
        name = folder / path.name
        reason = _reason(path, parents)
        if reason is not None:
            left_out.add(reason, name)
        elif path.is_dir():
            yield from _images(root, name, parents, left_out)
        else:
            yield name


def _reason(path: Path, parents: tuple[Path, ...]) -> str | None:
    """Return why a file or folder is left out; None if it is an image or a folder to list."""
    hidden = is_hidden(path.name)
    if hidden is not None:
        return hidden
    if not path.exists():
        return BROKEN
    if path.is_dir():
        real = path.resolve()
        return CIRCLE if any(parent.is_relative_to(real) for parent in parents) else None
    suffix = path.suffix.lower()
    return None if suffix in _readable_suffixes() else suffix or NO_SUFFIX


@cache
def _readable_suffixes() -> frozenset[str]:
    """Return the suffixes of the formats that PIL decodes, not those that it only recognises."""
    Image.init()
    undecoded = UNDECODED | {
        kind
        for kind, (reader, _) in Image.OPEN.items()
        if inspect.isclass(reader) and issubclass(reader, ImageFile.StubImageFile)
    }
    suffixes = Image.registered_extensions().items()
    return frozenset(suffix for suffix, kind in suffixes if kind in Image.OPEN.keys() - undecoded)
