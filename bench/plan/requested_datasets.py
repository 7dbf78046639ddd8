"""The datasets of a request: opened, downloaded if missing, and described."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import registry
from bench.datasets import dataset_contract
from bench.datasets.dataset import Dataset, DatasetInfo
from bench.datasets.resolve import is_path, open_dataset
from bench.errors import BenchError, DataUnavailableError
from bench.request import ALL, Request


@dataclass(frozen=True)
class RequestedDataset:
    """A dataset of a request.

    Attributes:
        name: name of the dataset.
        dataset: the dataset; None if it cannot be opened.
        info: facts about it; None if it is unavailable.
        missing: why it is unavailable; None if it is available.
    """

    name: str
    dataset: Dataset | None
    info: DatasetInfo | None
    missing: str | None = None


def requested_datasets(request: Request, download: bool) -> Iterator[RequestedDataset]:
    """Yield the datasets of a request, downloading those that are missing.

    Args:
        request: names and paths of the datasets.
        download: True to download missing datasets, False to call them unavailable.

    Raises:
        BenchError: if the request contains a mistake, or a dataset that it names is unavailable.
    """
    if not request.dataset_names:
        raise BenchError("An empty selection: no datasets.")
    specs = [spec for spec in dict.fromkeys(request.dataset_names) if spec != ALL]
    if request.value_range is not None and not any(map(is_path, specs)):
        raise BenchError("A range is for datasets given by path, and there is none.")
    opened = [_open(spec, request) for spec in specs]
    names = [dataset.name for dataset in opened]
    if len(set(names)) < len(names):
        raise BenchError(f"Two of the datasets have the same name: {', '.join(names)}.")
    for dataset in opened:
        yield _obtain(dataset, download, named=True)
    if ALL in request.dataset_names:
        for name in registry.datasets.names():
            if name not in names:
                yield _obtain_registered(name, request.data_folder, download)


def _obtain_registered(name: str, data_folder: Path, download: bool) -> RequestedDataset:
    """Return a dataset that was not requested by name; one that cannot be used has its reason."""
    try:
        return _obtain(open_dataset(name, data_folder), download, named=False)
    except BenchError as error:
        return RequestedDataset(name, None, None, str(error))


def _open(spec: str, request: Request) -> Dataset:
    """Open a dataset.

    Raises:
        BenchError: if it cannot be opened, or a comma divides its path.
    """
    try:
        return open_dataset(spec, request.data_folder, request.value_range)
    except BenchError as error:
        whole = _with_comma(spec, request)
        if whole is None:
            raise
        raise BenchError(
            f"Dataset {whole!r}: commas separate datasets, so a path cannot contain one: rename "
            "the file or folder, or give the datasets as a list from Python."
        ) from error


def _with_comma(spec: str, request: Request) -> str | None:
    """Return the part of the request whose path exists and which a comma splits after ``spec``."""
    if not isinstance(request.datasets, str):
        return None
    parts = request.datasets.split(",")
    for start in range(len(parts)):
        for end in range(start + 2, len(parts) + 1):
            whole = ",".join(parts[start:end]).strip()
            path = re.split(r"^\w+:|=", whole, maxsplit=1)[-1]
            if spec in map(str.strip, parts[start:end]) and Path(path).expanduser().exists():
                return whole
    return None


def _obtain(dataset: Dataset, download: bool, named: bool) -> RequestedDataset:
    """Return a dataset, downloading it if necessary.

    Raises:
        DataUnavailableError: if a dataset that was requested by name is unavailable.
    """
    try:
        missing = dataset_contract.missing(dataset)
        if missing and not download:
            reason = f"would be downloaded: {missing}"
            return RequestedDataset(dataset.name, dataset, None, reason)
        if missing:
            dataset_contract.fetch(dataset)
        return RequestedDataset(dataset.name, dataset, dataset_contract.describe(dataset))
    except DataUnavailableError as error:
        if named:
            raise
        return RequestedDataset(dataset.name, dataset, None, str(error))
