"""Opening of datasets by name: registered datasets, or files and folders of the user."""

import re
from pathlib import Path

from bench import registry
from bench.datasets.arrays import ArrayFile
from bench.datasets.dataset import Dataset, Variant
from bench.datasets.dataset_contract import check_dataset
from bench.datasets.folder import ImageFolder
from bench.errors import BenchError, ContractError, one_line

KINDS = ("folder", "npz")


def open_dataset(spec: str, root: Path) -> Dataset:
    """Open a registered dataset, a ``.npz`` file or a folder of images.

    Args:
        spec: name of a registered dataset, or ``NAME=PATH``, ``npz:PATH`` or ``folder:PATH`` for a
            file or folder of the user. The last two are named after the file or folder. A dataset
            with the name of a registered one is marked as its substitute.
        root: data root, which contains the registered datasets.

    Raises:
        UnknownNameError: if no dataset of this name is registered.
        ContractError: if the registered dataset breaks its contract.
        BenchError: if the path does not exist, or the name is invalid.

    >>> open_dataset("digits", Path("data")).name
    'digits'
    """
    kind, colon, path = spec.partition(":")
    if colon and kind in KINDS:
        return _open_path(_name_of(Path(path).expanduser()), path, spec, kind)
    name, equals, path = spec.partition("=")
    if equals:
        return _open_path(name, path, spec)
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


def _open_path(name: str, given: str, spec: str, kind: str | None = None) -> Dataset:
    path = Path(given).expanduser()
    if not given or not path.exists():
        raise BenchError(f"Dataset {spec!r}: the path {given!r} does not exist.")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
        raise BenchError(
            f"Dataset {spec!r}: the name {name!r} cannot be used; expected letters, digits, "
            "'_', '.' or '-', as in NAME=PATH."
        )
    actual = "folder" if path.is_dir() else "npz"
    if kind not in (None, actual):
        expected = "a folder" if kind == "folder" else "a .npz file"
        raise BenchError(f"Dataset {spec!r}: {given!r} is not {expected}.")
    variant: Variant = "substitute" if name in registry.datasets else "complete"
    return (ImageFolder if actual == "folder" else ArrayFile)(name, path, variant)


def _name_of(path: Path) -> str:
    """Return a file's stem or a folder's name, with ``-`` for characters not allowed in names.

    >>> _name_of(Path("my photos"))
    'my-photos'
    """
    name = path.resolve().stem if path.is_file() else path.resolve().name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
