"""What the command line names, opened: a registered dataset, or a user's own file or folder."""

import re
from pathlib import Path

from bench import registry
from bench.datasets.arrays import ArrayFile
from bench.datasets.dataset import Dataset, Variant
from bench.datasets.folder import ImageFolder
from bench.errors import BenchError

KINDS = ("folder", "npz")


def open_dataset(spec: str, root: Path) -> Dataset:
    """Open a dataset by what it is called.

    Args:
        spec: a registered name; ``NAME=PATH``, ``npz:PATH`` or ``folder:PATH`` for a ``.npz`` file
            or a folder of images, which in the latter two cases is called as the file is. One
            called like a registered dataset counts as its substitute.
        root: the data root that registered datasets lie under.

    Raises:
        UnknownNameError: no dataset of that name is registered.
        BenchError: a path that does not exist, or a name that cannot be used.
    """
    kind, colon, path = spec.partition(":")
    if colon and kind in KINDS:
        return _own(_name_of(Path(path).expanduser()), path, spec, kind)
    name, equals, path = spec.partition("=")
    if equals:
        return _own(name, path, spec)
    return registry.datasets.load(spec)(root)


def _own(name: str, given: str, spec: str, kind: str | None = None) -> Dataset:
    path = Path(given).expanduser()
    if not given or not path.exists():
        raise BenchError(f"Dataset {spec!r}: the path {given!r} does not exist.")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise BenchError(
            f"Dataset {spec!r}: the name {name!r} cannot be used; expected letters, digits, "
            "'_', '.' or '-', as in NAME=PATH."
        )
    found = "folder" if path.is_dir() else "npz"
    if kind not in (None, found):
        expected = "a folder" if kind == "folder" else "a .npz file"
        raise BenchError(f"Dataset {spec!r}: {given!r} is not {expected}.")
    variant: Variant = "substitute" if name in registry.datasets else "complete"
    return (ImageFolder if found == "folder" else ArrayFile)(name, path, variant)


def _name_of(path: Path) -> str:
    """A file's stem or a folder's name, with ``-`` for what a name may not hold."""
    name = path.resolve().stem if path.is_file() else path.resolve().name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
