"""The cells of a run, and the expansion of a request into cells."""

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError

from bench import registry
from bench.datasets import dataset_contract
from bench.datasets.dataset import Dataset, DatasetInfo
from bench.datasets.given_images import GivenImages, given_images
from bench.datasets.resolve import dataset_name, is_path, open_dataset
from bench.errors import BenchError, DatasetWarning, DataUnavailableError, UnknownNameError
from bench.protocol import Protocol, describe
from bench.request import ALL, Request, ScoreRequest
from bench.store.schema import (
    DATASET,
    EXTERNAL,
    EXTRACTOR,
    MODEL,
    NO_BACKEND,
    PIXEL_NOISE,
    REAL_IMAGES,
    Kind,
)
from bench.system.paths import safe_name

if TYPE_CHECKING:
    from bench.metrics.extractors.extractor import TrainedExtractor

UNKNOWN = "unknown"
SCALE_VERSION = "1"
# What the distances of real images and of noise depend on, their extractors included.
SCALE_FIELDS = (
    "image_size",
    "center_crop",
    "interpolation",
    "train_images",
    "test_images",
    "generated_images",
    "reference_split",
    "official_fid_split",
    "official_fad_batch_size",
    "inception_minimum_images",
    "autoencoder_epochs",
    "autoencoder_batch_size",
)


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
        kind: the thing that the cell trains: a model, or an extractor that metrics use.
    """

    model: str
    model_version: str
    backend: str
    dataset: str
    info: DatasetInfo | None
    protocol: Protocol
    seed: int
    skipped: str | None = None
    kind: ClassVar[Kind] = MODEL

    @property
    def is_prerequisite(self) -> bool:
        """True if other cells of the dataset can only be evaluated after this one."""
        return self.kind == EXTRACTOR

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
    def train_size(self) -> int:
        """Number of images that the cell trains on; 0 if the dataset is unavailable."""
        size = self.info.train_size if self.info else 0
        return min(size, self.resolved.train_images or size)

    @property
    def protocol_name(self) -> str:
        """Name of the protocol in the cell's rows."""
        return self.protocol.name_for(self.model)

    @property
    def title(self) -> str:
        """Name of the cell in progress reports and logs."""
        return f"{self.model} {self.backend} {self.dataset} {self.protocol_name} seed {self.seed}"

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
    kind: ClassVar[Kind] = EXTRACTOR

    @cached_property
    def resolved(self) -> Protocol:
        """The protocol as it holds for the models that use the extractor."""
        return self.protocol.resolve(self.user, self.dataset)

    @property
    def protocol_name(self) -> str:
        """Name of the protocol, whichever models use the extractor."""
        return self.protocol.name

    @cached_property
    def protocol_hash(self) -> str:
        """SHA-256 of the values of the protocol that move the extractor's numbers."""
        return self.resolved.hash_of(self.fields)

    @property
    def content(self) -> dict[str, Any]:
        """The values that the key is a hash of."""
        return {**super().content, "extractor": self.extractor}


@dataclass(frozen=True)
class DatasetCell(Cell):
    """The cell of real images or of noise, which give the scale of Fréchet distances.

    Attributes:
        user: one of the models that are scored; the protocol holds as for that model.
    """

    user: str = ""
    kind: ClassVar[Kind] = DATASET

    @cached_property
    def resolved(self) -> Protocol:
        """The protocol as it holds for the models that are scored."""
        return self.protocol.resolve(self.user, self.dataset)

    @property
    def protocol_name(self) -> str:
        """Name of the protocol, whichever models are scored."""
        return self.protocol.name

    @cached_property
    def protocol_hash(self) -> str:
        """SHA-256 of the values of the protocol that move the distances."""
        return self.resolved.hash_of(SCALE_FIELDS)


@dataclass(frozen=True)
class ImagesCell(Cell):
    """The cell of images that exist: it is scored, and nothing is trained.

    Attributes:
        generated: generated images.
        reconstructions: reconstructions of all test images, in their order; None if there are none.
    """

    generated: GivenImages = field(kw_only=True)
    reconstructions: GivenImages | None = field(kw_only=True, default=None)

    @property
    def content(self) -> dict[str, Any]:
        """The values that the key is a hash of."""
        given = self.reconstructions
        return {
            **super().content,
            "generated": self.generated.sha256,
            "reconstructions": None if given is None else given.sha256,
        }


@dataclass(frozen=True)
class Plan:
    """The cells of a request, in the order in which they run, and their datasets by name."""

    cells: tuple[Cell, ...]
    datasets: dict[str, Dataset]

    @property
    def infos(self) -> list[DatasetInfo]:
        """The facts about the datasets that are available."""
        return list({cell.info.name: cell.info for cell in self.cells if cell.info}.values())

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

    def with_scale(self) -> "Plan":
        """Return the plan with cells of real images and of noise, before the first cell they scale.

        A cell that is skipped needs none.
        """
        known: set[str] = set()
        cells: list[Cell] = []
        for cell in self.cells:
            scores = cell.kind == MODEL and not cell.skipped
            for scored in _scale_cells(cell) if scores else ():
                if scored.key not in known:
                    known.add(scored.key)
                    cells.append(scored)
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
    dataset: Dataset | None
    info: DatasetInfo | None
    missing: str | None = None


def make_plan(request: Request, seeds: Iterable[int] | None = None, download: bool = True) -> Plan:
    """Expand a request into cells, datasets outermost. Detects every mistake in the request.

    The notes of a dataset, such as files that are left out, become a :class:`DatasetWarning`.

    Args:
        request: models, datasets, backends and protocol.
        seeds: seeds of the cells, whole numbers from 0; None for the protocol's seeds.
        download: True to download missing datasets, False to skip them.

    Raises:
        BenchError: if the request contains a mistake, or a dataset that it names is unavailable.
    """
    models = list(_chosen_models(request))
    broken = _broken_backends(request, models)
    _check_protocol_names(request)
    datasets = list(_chosen_datasets(request, download))
    for chosen in datasets:
        for note in chosen.info.notes if chosen.info else ():
            warnings.warn(f"Dataset {chosen.name}: {note}", DatasetWarning, stacklevel=2)
    chosen_seeds = _chosen_seeds(request.full_protocol, seeds)
    cells = tuple(
        _cell(
            request.full_protocol,
            model,
            backend,
            dataset,
            seed=seed,
            broken_backend=broken.get(backend),
        )
        for dataset in datasets
        for seed in chosen_seeds
        for model in models
        for backend in model.backends
    )
    waits = not download and any(chosen.missing for chosen in datasets)
    if all(cell.skipped for cell in cells) and ALL not in request.dataset_names and not waits:
        raise BenchError(f"Nothing can run: {cells[0].title}: {cells[0].skipped}")
    return Plan(cells, {each.name: each.dataset for each in datasets if each.dataset})


def make_images_plan(request: ScoreRequest) -> Plan:
    """Return the plan of one cell, which scores images that exist.

    Args:
        request: images, dataset and protocol.

    Raises:
        BenchError: the request contains a mistake, the dataset is unavailable, or the images do not
            fit it.
    """
    generated = given_images(request.images, request.range_of_images)
    reconstructions = None
    if request.reconstructions is not None:
        reconstructions = given_images(request.reconstructions, request.range_of_images)
    base = request.base
    _check_protocol_names(base)
    (dataset,) = _chosen_datasets(base, download=True)
    assert dataset.info is not None
    name, protocol = request.checked_name, base.full_protocol
    if protocol.resolve(name, dataset.name).generated_images != len(generated):
        protocol = protocol.customised({"generated_images": len(generated)})
    cell = ImagesCell(
        model=name,
        model_version=generated.sha256[:16],
        backend=EXTERNAL,
        dataset=dataset.name,
        info=dataset.info,
        protocol=protocol,
        seed=_chosen_seeds(protocol, [request.seed])[0],
        generated=generated,
        reconstructions=reconstructions,
    )
    _check_images(cell)
    return Plan((cell,), {dataset.name: dataset.dataset} if dataset.dataset else {})


def _check_images(cell: ImagesCell) -> None:
    """Check that images fit the dataset as the protocol prepares it.

    Raises:
        BenchError: if size, channels or the number of reconstructions are others.
    """
    assert cell.info is not None
    size, channels = cell.resolved.image_size, cell.info.channels
    for given in (cell.generated, cell.reconstructions):
        if given is not None and given.pixels.shape[1:] != (channels, size, size):
            found, height, width = given.pixels.shape[1:]
            raise BenchError(
                f"{given.source} holds images of {found} channels, {width}x{height}: "
                f"{cell.dataset} is scored with {channels}, {size}x{size} (image_size in the "
                "protocol)."
            )
    if cell.reconstructions is None:
        return
    expected = min(cell.info.test_size, cell.resolved.test_images or cell.info.test_size)
    if len(cell.reconstructions) != expected:
        raise BenchError(
            f"{cell.reconstructions.source} holds {len(cell.reconstructions)} reconstructions: "
            f"{cell.dataset} has {expected} test images under this protocol, in their order."
        )
    if cell.resolved.horizontal_flip == "train_and_test":
        raise BenchError(
            f"protocol {cell.resolved.name!r} flips test images at random, so reconstructions of "
            "them cannot be scored: use --set horizontal_flip=train, or none."
        )


def _chosen_models(request: Request) -> Iterator[_ChosenModel]:
    backends = tuple(_known_names("backend", request.backend_names, registry.backends))
    for name in _known_names("model", request.model_names, registry.models):
        try:
            model_class = registry.models.load(name)
        except BenchError as error:
            if ALL not in request.model_names:
                raise
            yield _ChosenModel(name, None, (UNKNOWN,), broken=str(error))
            continue
        yield _ChosenModel(name, model_class, backends if model_class.spiking else (NO_BACKEND,))


def _broken_backends(request: Request, models: Iterable[_ChosenModel]) -> dict[str, str]:
    """Return why backends that the models use cannot be loaded, by name of the backend.

    Raises:
        BenchError: if one of them was requested by name.
    """
    used = {backend for model in models for backend in model.backends if not model.broken}
    broken = {}
    for name in sorted(used - {NO_BACKEND}):
        try:
            registry.backends.load(name)
        except BenchError as error:
            if ALL not in request.backend_names:
                raise
            broken[name] = str(error)
    return broken


def _chosen_seeds(protocol: Protocol, requested: Iterable[int] | None) -> list[int]:
    seeds = list(protocol.seeds if requested is None else requested)
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
            raise BenchError(f"Seeds: expected whole numbers from 0, got {seed!r}.")
    if not seeds:
        raise BenchError("An empty selection: no seeds.")
    return _distinct(seeds)


def _known_names(
    kind: str, requested: Iterable[str], known: registry.Registry[Any]
) -> Iterable[str]:
    requested = _distinct(requested)
    if not requested:
        raise BenchError(f"An empty selection: no {kind}s.")
    for name in requested:
        if name != ALL and name not in known:
            raise UnknownNameError(kind, name, [*known.names(), ALL])
    return known.names() if ALL in requested else requested


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _chosen_datasets(request: Request, download: bool) -> Iterator[_ChosenDataset]:
    if not request.dataset_names:
        raise BenchError("An empty selection: no datasets.")
    specs = [spec for spec in _distinct(request.dataset_names) if spec != ALL]
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


def _obtain_registered(name: str, data_folder: Path, download: bool) -> _ChosenDataset:
    """Return a dataset that was not requested by name; one that cannot be used has its reason."""
    try:
        return _obtain(open_dataset(name, data_folder), download, named=False)
    except BenchError as error:
        return _ChosenDataset(name, None, None, str(error))


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


def _obtain(dataset: Dataset, download: bool, named: bool) -> _ChosenDataset:
    """Return a dataset, downloading it if necessary.

    Raises:
        DataUnavailableError: if a dataset that was requested by name is unavailable.
    """
    try:
        missing = dataset_contract.missing(dataset)
        if missing and not download:
            reason = f"would be downloaded: {missing}"
            return _ChosenDataset(dataset.name, dataset, None, reason)
        if missing:
            dataset_contract.fetch(dataset)
        return _ChosenDataset(dataset.name, dataset, dataset_contract.describe(dataset))
    except DataUnavailableError as error:
        if named:
            raise
        return _ChosenDataset(dataset.name, dataset, None, str(error))


def _check_protocol_names(request: Request) -> None:
    """Check that the models and datasets named in the protocol exist.

    Raises:
        UnknownNameError: if one does not, for example because of a typo.
    """
    protocol = request.full_protocol
    named = {*protocol.models}
    for override in protocol.overrides:
        named.update(override.models, override.set.get("models", {}))
    for name in sorted(named - set(registry.models.names())):
        raise UnknownNameError("model", name, registry.models.names())
    requested = {dataset_name(spec) for spec in request.dataset_names}
    known = {*registry.datasets.names(), *requested}
    for name in sorted({name for o in protocol.overrides for name in o.datasets} - known):
        raise UnknownNameError("dataset", name, known - {ALL})


def _cell(
    protocol: Protocol,
    model: _ChosenModel,
    backend: str,
    dataset: _ChosenDataset,
    *,
    seed: int,
    broken_backend: str | None,
) -> Cell:
    version = UNKNOWN if model.broken else model.model_class.version
    skipped = model.broken or dataset.missing or broken_backend
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


def _scale_cells(user: Cell) -> Iterator[DatasetCell]:
    """Yield the cells that give the scale of the distances of a model's cell."""
    for name in (REAL_IMAGES, PIXEL_NOISE):
        yield DatasetCell(
            model=name,
            model_version=SCALE_VERSION,
            backend=NO_BACKEND,
            dataset=user.dataset,
            info=user.info,
            protocol=user.protocol,
            seed=0,
            user=user.model,
        )


def _unsupported(resolved: Protocol, model: _ChosenModel, info: DatasetInfo) -> str | None:
    """Return why the model cannot run on the dataset; None if it can.

    Raises:
        BenchError: if the protocol contradicts the model's options or the dataset.
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
