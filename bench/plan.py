"""Expand a run request into cells, each with a content-hash key; every user error is found here."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import ValidationError

from bench import registry
from bench.datasets.dataset import Dataset, DatasetInfo
from bench.datasets.resolve import open_dataset
from bench.errors import BenchError, DataUnavailableError, UnknownNameError
from bench.protocol import Protocol, describe
from bench.store.schema import NO_BACKEND

if TYPE_CHECKING:
    from bench.metrics.extractors.extractor import TrainedExtractor

Kind = Literal["model", "extractor"]
ALL = "all"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Request:
    """A selection of cells, as asked.

    Attributes:
        models: registered names; ``("all",)`` for every one.
        backends: registered names of spiking backends; ``("all",)`` for every one.
        datasets: registered names, ``NAME=PATH``, ``folder:PATH`` or ``npz:PATH``;
            ``("all",)`` for every registered one.
        protocol: what the cells are trained and scored by.
        seeds: one or more; the protocol's own if None.
        data_root: where datasets are looked for and downloaded to.
    """

    models: tuple[str, ...]
    backends: tuple[str, ...]
    datasets: tuple[str, ...]
    protocol: Protocol
    seeds: tuple[int, ...] | None
    data_root: Path


def safe_name(name: str) -> str:
    """Return a name as a file name for any file system: no separators, no leading dot, short."""
    return re.sub(r"[^A-Za-z0-9_.+=-]+", "_", name).lstrip(".")[:120]


@dataclass(frozen=True)
class Cell:
    """One (model, backend, dataset, protocol, seed): the unit of work, caching and failure.

    Attributes:
        model: registered name.
        model_version: version of the model's code.
        backend: registered name, or ``torch`` for a model without spiking neurons.
        dataset: name of the dataset.
        info: facts about the dataset; None if it is unavailable.
        protocol: the protocol as requested, with its overrides.
        seed: seed of every random draw.
        skipped: why the cell cannot run; None if it can.
        kind: what the cell trains: a model, or an extractor that metrics of models use.
    """

    model: str
    model_version: str
    backend: str
    dataset: str
    info: DatasetInfo | None
    protocol: Protocol
    seed: int
    skipped: str | None = None
    kind: ClassVar[Kind] = "model"

    @cached_property
    def key(self) -> str:
        """Content key, 16 hex digits: anything that moves a number changes it."""
        canonical = json.dumps(self.content, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def content(self) -> dict[str, Any]:
        """The values that the key is a hash of."""
        return {
            "model": self.model,
            "model_version": self.model_version,
            "backend": self.backend,
            "dataset": self.dataset,
            "fingerprint": self.info.fingerprint if self.info else None,
            "protocol": self.protocol_hash,
            "seed": self.seed,
        }

    @cached_property
    def protocol_hash(self) -> str:
        """SHA-256 of the values of the protocol that hold for this cell, as 64 hex digits."""
        return self.resolved.hash

    @property
    def title(self) -> str:
        """Name of the cell in progress reports and logs."""
        return f"{self.model} {self.backend} {self.dataset} {self.protocol.name} seed {self.seed}"

    @property
    def folder(self) -> str:
        """Name of the cell's folder: readable, unique by its key, safe on any file system.

        It does not hold the name of the protocol: two protocols of the same values share the cell.
        """
        name = "-".join((self.model, self.backend, self.dataset, f"s{self.seed}"))
        return f"{safe_name(name)}-{self.key}"

    @cached_property
    def resolved(self) -> Protocol:
        """The protocol as it holds for the cell's model and dataset."""
        return self.protocol.resolve(self.model, self.dataset)

    def without_data(self) -> "Cell":
        """Return the cell that stands in for this one while its dataset is unavailable."""
        return replace(self, info=None, skipped=None)


@dataclass(frozen=True)
class ExtractorCell(Cell):
    """The cell that trains an extractor once, for all cells of a dataset that use it.

    Attributes:
        extractor: registered name.
        fields: names of the protocol's fields that move its numbers.
        user: one of the models that use the extractor; the protocol holds as for that model.
    """

    extractor: str = ""
    fields: tuple[str, ...] = ()
    user: str = ""
    kind: ClassVar[Kind] = "extractor"

    @cached_property
    def resolved(self) -> Protocol:
        """The protocol as it holds for the models that use the extractor."""
        return self.protocol.resolve(self.user, self.dataset)

    @cached_property
    def protocol_hash(self) -> str:
        """SHA-256 of the values of the protocol that move the extractor's numbers."""
        return self.resolved.hash_of(self.fields)

    @property
    def content(self) -> dict[str, Any]:
        """The values that the key is a hash of."""
        return {**super().content, "extractor": self.extractor}


@dataclass(frozen=True)
class Plan:
    """The cells of a request, in the order in which they run, and their datasets by name."""

    cells: tuple[Cell, ...]
    datasets: dict[str, Dataset]

    def with_extractors(self, extractors: Mapping[str, type["TrainedExtractor"]]) -> "Plan":
        """Return the plan with a cell for each training of an extractor, before its first user.

        Args:
            extractors: classes of the trained extractors, by registered name.
        """
        known: set[str] = set()
        cells: list[Cell] = []
        for cell in self.cells:
            for name, extractor in extractors.items():
                training = None if cell.skipped else _extractor_cell(cell, name, extractor)
                if training is not None and training.key not in known:
                    known.add(training.key)
                    cells.append(training)
            cells.append(cell)
        return Plan(tuple(cells), self.datasets)


@dataclass(frozen=True)
class _ChosenModel:
    name: str
    model_class: Any
    backends: tuple[str, ...]
    broken: str | None = None


@dataclass(frozen=True)
class _ChosenDataset:
    name: str
    dataset: Dataset
    info: DatasetInfo | None
    missing: str | None = None


def make_plan(request: Request, download: bool = True) -> Plan:
    """Check a request and lay out its cells, datasets outermost.

    Args:
        request: selection of cells.
        download: True to download missing datasets; else their cells are skipped.

    Raises:
        BenchError: a user error in the request, or a dataset requested by name is unavailable.
    """
    models = list(_chosen_models(request))
    _check_protocol_names(request)
    datasets = list(_chosen_datasets(request, download))
    seeds = _chosen_seeds(request)
    cells = tuple(
        _cell(request.protocol, model, backend, dataset, seed)
        for dataset in datasets
        for seed in seeds
        for model in models
        for backend in model.backends
    )
    told_to_wait = not download and any(chosen.missing for chosen in datasets)
    if all(cell.skipped for cell in cells) and ALL not in request.datasets and not told_to_wait:
        raise BenchError(f"Nothing can run: {cells[0].title}: {cells[0].skipped}")
    return Plan(cells, {chosen.name: chosen.dataset for chosen in datasets})


def _chosen_models(request: Request) -> Iterator[_ChosenModel]:
    backends = tuple(_chosen_names("backend", request.backends, registry.backends))
    for name in _chosen_names("model", request.models, registry.models):
        try:
            model_class = registry.models.load(name)
        except BenchError as error:
            if ALL not in request.models:
                raise
            yield _ChosenModel(name, None, (UNKNOWN,), broken=str(error))
            continue
        yield _ChosenModel(name, model_class, backends if model_class.spiking else (NO_BACKEND,))


def _chosen_seeds(request: Request) -> list[int]:
    seeds = request.seeds if request.seeds is not None else request.protocol.seeds
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            raise BenchError(f"Seeds: expected whole numbers from 0, got {seed!r}.")
    if not seeds:
        raise BenchError("An empty selection: no seeds.")
    return _distinct(seeds)


def _chosen_names(kind: str, asked: Iterable[str], known: registry.Registry[Any]) -> Iterable[str]:
    asked = _distinct(asked)
    if not asked:
        raise BenchError(f"An empty selection: no {kind}s.")
    for name in asked:
        if name != ALL and name not in known:
            raise UnknownNameError(kind, name, [*known.names(), ALL])
    return known.names() if ALL in asked else asked


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _chosen_datasets(request: Request, download: bool) -> Iterator[_ChosenDataset]:
    if not request.datasets:
        raise BenchError("An empty selection: no datasets.")
    specs = [spec for spec in _distinct(request.datasets) if spec != ALL]
    opened = [open_dataset(spec, request.data_root) for spec in specs]
    names = [dataset.name for dataset in opened]
    if len(set(names)) < len(names):
        raise BenchError(f"Two of the datasets have the same name: {', '.join(names)}.")
    for dataset in opened:
        yield _had(dataset, download, named=True)
    if ALL in request.datasets:
        for name in registry.datasets.names():
            if name not in names:
                yield _had(open_dataset(name, request.data_root), download, named=False)


def _had(dataset: Dataset, download: bool, named: bool) -> _ChosenDataset:
    """Return the dataset, downloading it if necessary; one requested by name must be available."""
    try:
        missing = dataset.missing()
        if missing and not download:
            return _ChosenDataset(dataset.name, dataset, None, f"would be fetched: {missing}")
        if missing:
            dataset.fetch()
        return _ChosenDataset(dataset.name, dataset, dataset.info())
    except DataUnavailableError as error:
        if named:
            raise
        return _ChosenDataset(dataset.name, dataset, None, str(error))


def _check_protocol_names(request: Request) -> None:
    """Check that names in the protocol's overrides and options exist."""
    protocol = request.protocol
    named = {*protocol.models}
    for override in protocol.overrides:
        named.update(override.models, override.set.get("models", {}))
    for name in sorted(named - set(registry.models.names())):
        raise UnknownNameError("model", name, registry.models.names())
    known = {*registry.datasets.names(), *(spec.partition("=")[0] for spec in request.datasets)}
    for name in sorted({name for o in protocol.overrides for name in o.datasets} - known):
        raise UnknownNameError("dataset", name, known - {ALL})


def _cell(
    protocol: Protocol, model: _ChosenModel, backend: str, dataset: _ChosenDataset, seed: int
) -> Cell:
    version = UNKNOWN if model.broken else model.model_class.version
    skipped = model.broken or dataset.missing
    if not skipped:
        assert dataset.info is not None
        skipped = _unsupported(protocol.resolve(model.name, dataset.name), model, dataset.info)
    return Cell(
        model=model.name,
        model_version=version,
        backend=backend,
        dataset=dataset.name,
        info=dataset.info,
        protocol=protocol,
        seed=seed,
        skipped=skipped,
    )


def _extractor_cell(
    user: Cell, name: str, extractor: type["TrainedExtractor"]
) -> ExtractorCell | None:
    """Return the cell that trains an extractor for a model's cell; None if none can be trained."""
    fields = extractor.training_fields(user.resolved)
    if fields is None:
        return None
    return ExtractorCell(
        model=extractor.cell_name,
        model_version=extractor.version,
        backend=NO_BACKEND,
        dataset=user.dataset,
        info=user.info,
        protocol=user.protocol,
        seed=0,
        extractor=name,
        # Its own metric is measured on the test images.
        fields=(*fields, "test_images"),
        user=user.model,
    )


def _unsupported(resolved: Protocol, model: _ChosenModel, info: DatasetInfo) -> str | None:
    """Return why the model cannot take the dataset; None if it can.

    Raises:
        BenchError: the protocol contradicts the model's options or the dataset.
    """
    try:
        model.model_class.Options.model_validate(resolved.options)
    except ValidationError as error:
        raise BenchError(
            f"protocol {resolved.name!r}, options of {model.name}: {describe(error)}"
        ) from error
    train_size = min(info.train_size, resolved.train_images or info.train_size)
    if resolved.batch_size > train_size:
        raise BenchError(
            f"protocol {resolved.name!r}: batch_size {resolved.batch_size} is larger than the "
            f"{train_size} training images of {info.name}; use --set batch_size=N."
        )
    if resolved.precision not in model.model_class.precisions:
        return (
            f"it computes in {' or '.join(sorted(model.model_class.precisions))}, not in "
            f"{resolved.precision} (precision in the protocol)"
        )
    image_shape = (info.channels, resolved.image_size, resolved.image_size)
    return model.model_class.unsupported(image_shape, resolved)
