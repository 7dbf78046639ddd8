"""Opening of datasets by name: registered datasets, or files and folders of the user."""

import re
from pathlib import Path

from bench import registry
from bench.datasets.arrays import ArrayFile
from bench.datasets.dataset import Dataset, Variant
from bench.datasets.dataset_contract import check_dataset
from bench.datasets.folder import ImageFolder
from bench.datasets.value_range import ValueRange
from bench.errors import BenchError, ContractError, one_line

KINDS = ("folder", "npz")


def open_dataset(spec: str, root: Path, value_range: ValueRange | None = None) -> Dataset:
    """Open a registered dataset, a ``.npz`` file or a folder of images.

    Args:
        spec: name of a registered dataset, or ``NAME=PATH``, ``npz:PATH`` or ``folder:PATH`` for a
            file or folder of the user. The last two are named after the file or folder. A dataset
            with the name of a registered one is marked as its substitute.
        root: data root, which contains the registered datasets.
        value_range: lowest and highest possible value of the pixels in a file or folder of the
            user, mapped to 0..255; None for 0..255.

    Raises:
        UnknownNameError: if no dataset of this name is registered.
        ContractError: if the registered dataset breaks its contract.
        BenchError: if the path does not exist, or the name is invalid.

    >>> open_dataset("digits", Path("data")).name
    'digits'
    """
    kind, name, path = _parts(spec)
    if path is not None:
        return _open_path(name, path, spec, kind, value_range)
    if spec not in registry.datasets and _looks_like_path(spec):
        raise _bare_path(spec)
    return _open_registered(spec, root)


def _open_registered(name: str, root: Path) -> Dataset:
    """Open a registered dataset.

    Raises:
        ContractError: its constructor fails, or one of its attributes is missing or wrong.
    """
    dataset_class = registry.datasets.load(name)
    try:
        dataset: Dataset = dataset_class(root)
        check_dataset(name, dataset)
    except Exception as error:
        raise ContractError(
            f"The dataset {name!r} cannot be used ({dataset_class.__module__}:"
            f"{dataset_class.__qualname__}): {one_line(error)}."
        ) from error
    return dataset


def dataset_name(spec: str) -> str:
    """Return the name of a dataset in cells and rows, without opening it.

    >>> dataset_name("digits"), dataset_name("mine=images.npz"), dataset_name("folder:photos")
    ('digits', 'mine', 'photos')
    """
    return _parts(spec)[1]


def is_path(spec: str) -> bool:
    """Return True if a dataset is a file or folder of the user.

    >>> is_path("digits"), is_path("mine=images.npz")
    (False, True)
    """
    return _parts(spec)[2] is not None


def _parts(spec: str) -> tuple[str | None, str, str | None]:
    """Split a specification into kind, name and path; kind and path are None if not given."""
    kind, colon, path = spec.partition(":")
    if colon and kind in KINDS:
        return kind, _name_of(Path(path).expanduser()), path
    name, equals, path = spec.partition("=")
    return None, name, path if equals else None


def _open_path(
    name: str, given: str, spec: str, kind: str | None, value_range: ValueRange | None
) -> Dataset:
    path = Path(given).expanduser().absolute()
    if not given or not path.exists():
        raise BenchError(f"Dataset {spec!r}: the path {given!r} does not exist.")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise BenchError(
            f"Dataset {spec!r}: the name {name!r} cannot be used; expected letters, digits, "
            "'_', '.' or '-', as in NAME=PATH."
        )
    actual = _kind(path)
    if kind not in (None, actual):
        expected = "a folder" if kind == "folder" else "a .npz file"
        raise BenchError(f"Dataset {spec!r}: {given!r} is not {expected}; use {actual}:{given}.")
    variant: Variant = "substitute" if name in registry.datasets else "complete"
    opened = ImageFolder if actual == "folder" else ArrayFile
    return opened(name, path, variant, value_range)


def _kind(path: Path) -> str:
    return "folder" if path.is_dir() else "npz"


def _looks_like_path(spec: str) -> bool:
    return "/" in spec or "\\" in spec or spec.endswith(".npz") or Path(spec).exists()


def _bare_path(spec: str) -> BenchError:
    path = Path(spec).expanduser()
    if not path.exists():
        return BenchError(
            f"Dataset {spec!r} is neither a registered name nor an existing path; give a path as "
            "npz:PATH, folder:PATH or NAME=PATH."
        )
    return BenchError(
        f"Dataset {spec!r} is a path: use {_kind(path)}:{spec}, or NAME={spec} to name it."
    )


def _name_of(path: Path) -> str:
    """Return a file's stem or a folder's name, with ``-`` for characters not allowed in names.

    >>> _name_of(Path("my photos"))
    'my-photos'
    """
    name = path.resolve().stem if path.is_file() else path.resolve().name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
