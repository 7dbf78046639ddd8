"""The plan of a run: the expansion of a request into cells."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bench import registry
from bench.datasets.dataset import Dataset, DatasetInfo
from bench.datasets.resolve import dataset_name
from bench.errors import BenchError, DatasetWarning, UnknownNameError
from bench.plan.cells import Cell, DatasetCell, ExtractorCell
from bench.plan.requested_datasets import RequestedDataset, requested_datasets
from bench.protocol import BEST_TEST_LOSS, Protocol, describe
from bench.registry import DEFAULT_BACKEND, OTHER_BACKEND
from bench.request import ALL, Request
from bench.store.schema import MODEL, NO_BACKEND, PIXEL_NOISE, REAL_IMAGES, UNPUBLISHED

if TYPE_CHECKING:
    from bench.metrics.extractors.extractor import TrainedExtractor
    from bench.model import ImageShape

    TrainedExtractors = Mapping[str, type[TrainedExtractor]]

UNKNOWN = "unknown"
SCALE_VERSION = "1"
# What the distances of real images and of noise depend on, besides the training of extractors.
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
)


@dataclass(frozen=True)
class Plan:
    """The cells of a request, in the order in which they run, and their datasets by name."""

    cells: tuple[Cell, ...]
    datasets: dict[str, Dataset]

    @property
    def infos(self) -> list[DatasetInfo]:
        """The facts about the datasets that are available."""
        return list({cell.info.name: cell.info for cell in self.cells if cell.info}.values())

    def with_extractors(self, extractors_of: "Callable[[Cell], TrainedExtractors]") -> "Plan":
        """Return the plan with a cell for each training of an extractor, before its first user.

        Args:
            extractors_of: function that returns the classes of the trained extractors that a cell
                uses, by registered name.
        """
        return self._with_shared(
            lambda cell: (_extractor_cell(cell, *named) for named in extractors_of(cell).items())
        )

    def with_scale(self, extractors: Iterable[type["TrainedExtractor"]]) -> "Plan":
        """Return the plan with cells of real images and of noise, before the first cell they scale.

        A cell that is skipped needs none.

        Args:
            extractors: classes of the trained extractors of all distances that have a scale.
        """
        return self._with_shared(
            lambda cell: _scale_cells(cell, extractors) if cell.kind == MODEL else ()
        )

    def _with_shared(self, shared_by: Callable[[Cell], Iterable[Cell | None]]) -> "Plan":
        """Return the plan with the cells that its cells share, each once, before its first user."""
        known: set[str] = set()
        cells: list[Cell] = []
        for cell in self.cells:
            for shared in () if cell.skipped else shared_by(cell):
                if shared is not None and shared.key not in known:
                    known.add(shared.key)
                    cells.append(shared)
            cells.append(cell)
        return Plan(tuple(cells), self.datasets)


@dataclass(frozen=True)
class _ChosenModel:
    name: str
    model_class: Any
    backends: tuple[str, ...]
    broken: str | None = None


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
    check_protocol_names(request)
    datasets = list(requested_datasets(request, download))
    for chosen in datasets:
        for note in chosen.info.notes if chosen.info else ():
            warnings.warn(f"Dataset {chosen.name}: {note}", DatasetWarning, stacklevel=2)
    chosen_seeds = checked_seeds(request.full_protocol, seeds)
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
        BenchError: if one of them was requested by name, and is not the default.
    """
    chosen = set(request.backend_names) - {DEFAULT_BACKEND}
    used = {backend for model in models for backend in model.backends if not model.broken}
    broken = {}
    for name in sorted(used - {NO_BACKEND}):
        try:
            registry.backends.load(name)
        except BenchError as error:
            if ALL not in chosen and name in chosen:
                raise
            broken[name] = f"{error} To run all the same, {OTHER_BACKEND}."
    return broken


def checked_seeds(protocol: Protocol, requested: Iterable[int] | None) -> list[int]:
    """Return the seeds of a request, each once; the protocol's if it names none.

    Raises:
        BenchError: if one of them is not a whole number from 0, or there is none.
    """
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


def check_protocol_names(request: Request) -> None:
    """Check that the models and datasets named in the protocol exist.

    Raises:
        UnknownNameError: if one does not, for example because of a typo.
    """
    protocol = request.full_protocol
    named = {*protocol.models}
    for override in protocol.overrides:
        named.update(override.models, override.set.get("models", {}))
    for name in sorted(name for name in named if name not in registry.models):
        raise UnknownNameError("model", name, registry.models.names())
    requested = {dataset_name(spec) for spec in request.dataset_names}
    known = {*registry.datasets.names(), *requested}
    for name in sorted({name for o in protocol.overrides for name in o.datasets} - known):
        raise UnknownNameError("dataset", name, known - {ALL})


def _cell(
    protocol: Protocol,
    model: _ChosenModel,
    backend: str,
    dataset: RequestedDataset,
    *,
    seed: int,
    broken_backend: str | None,
) -> Cell:
    version = UNKNOWN if model.broken else model.model_class.version
    skipped = model.broken or dataset.missing or broken_backend
    if not skipped:
        assert dataset.info is not None
        resolved = protocol.resolve(model.name, dataset.name)
        skipped = _unsupported(resolved, model, dataset.info)
        variant = model.model_class.unpublished(_image_shape(resolved, dataset.info), resolved)
        version = f"{version}+{UNPUBLISHED}{variant}" if variant else version
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
        user=user.registered_model,
    )


def _scale_cells(
    user: Cell, extractors: Iterable[type["TrainedExtractor"]]
) -> Iterator[DatasetCell]:
    """Yield the cells that give the scale of the distances of a model's cell."""
    trained = [extractor.training_fields(user.resolved) or () for extractor in extractors]
    for name in (REAL_IMAGES, PIXEL_NOISE):
        yield DatasetCell(
            model=name,
            model_version=SCALE_VERSION,
            backend=NO_BACKEND,
            dataset=user.dataset,
            info=user.info,
            protocol=user.protocol,
            seed=0,
            fields=tuple(dict.fromkeys((*SCALE_FIELDS, *chain.from_iterable(trained)))),
            user=user.registered_model,
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
    if model.model_class.class_conditional and info.class_counts is None:
        return "it is class-conditional, and the classes of the images are unknown"
    if resolved.precision not in model.model_class.precisions:
        return (
            f"it computes in {' or '.join(sorted(model.model_class.precisions))}, not in "
            f"{resolved.precision} (precision in the protocol)"
        )
    if resolved.epoch_selection == BEST_TEST_LOSS and not _has_test_loss(model):
        return (
            "it has no test loss to select epochs by: set epoch_selection=last or "
            "epoch_selection=best_per_metric in the protocol"
        )
    stages = len(model.model_class.stages(resolved))
    if resolved.epochs < stages:
        return f"its {stages} stages need {stages} epochs, not {resolved.epochs}"
    return model.model_class.unsupported(_image_shape(resolved, info), resolved)


def _has_test_loss(model: _ChosenModel) -> bool:
    return "test_loss" in model.model_class.capabilities


def _image_shape(resolved: Protocol, info: DatasetInfo) -> "ImageShape":
    return info.channels, resolved.image_size, resolved.image_size
