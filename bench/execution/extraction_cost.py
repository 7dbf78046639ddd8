"""Cost of metrics, known before a run: images for each extractor, and seconds of a few of them."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from bench import registry
from bench.datasets.batches import to_unit_range
from bench.errors import one_line
from bench.execution.run_context import RunContext
from bench.metrics.distribution import DistributionMetric
from bench.metrics.extractors.extractor import Extractor, ExtractorContext, TrainedExtractor
from bench.metrics.metric import Metric
from bench.plan.cells import Cell
from bench.plan.run_plan import Plan
from bench.store.schema import MODEL, TRAINING_FILE
from bench.system.checksums import DamagedFileError
from bench.system.paths import Resources
from bench.system.progress import WorkReporter
from bench.system.threads import cpu_threads

# After one batch to warm up.
TIMED_BATCHES = 2
BATCH = 8


@dataclass(frozen=True)
class ExtractionCost:
    """Images whose features one extractor computes in a run, as far as it is known before.

    Attributes:
        extractor: registered name.
        generated: number of generated images, counted once per cell and per scored epoch, and of
            the images that give distances their scale.
        dataset: number of images of datasets, less if the cache has their features; None if it is
            unknown.
        seconds_per_image: measured seconds per image; None if the extractor cannot be used here.
        reason: why it cannot be used; None if it can.
    """

    extractor: str
    generated: int
    dataset: int | None
    seconds_per_image: float | None
    reason: str | None

    @property
    def minutes(self) -> float | None:
        """Minutes for all images; None if the extractor cannot be used here."""
        if self.seconds_per_image is None:
            return None
        return self.seconds_per_image * (self.generated + (self.dataset or 0)) / 60


@dataclass(frozen=True)
class _Use:
    """Use of an extractor by a cell: for which metrics, in how many passes over its images."""

    cell: Cell
    metrics: tuple[type[DistributionMetric], ...]
    passes: int

    @property
    def generated(self) -> int:
        return self.passes * self.cell.scored_images


def extraction_costs(plan: Plan, context: RunContext, device: torch.device) -> list[ExtractionCost]:
    """Return the cost of each extractor that missing metrics need and that is not trained.

    Nothing is downloaded. An extractor is timed on a few random images of the size of the first
    cell that needs it.

    Args:
        plan: cells of the run.
        context: context of the run.
        device: device of the run.
    """
    uses: dict[str, list[_Use]] = {}
    for cell in plan.cells:
        if not cell.skipped and not cell.is_prerequisite:
            for name, use in _uses(cell, context).items():
                uses.setdefault(name, []).append(use)
    return [
        _cost(name, of_cells, context.resources, device)
        for name, of_cells in sorted(uses.items())
        if not registry.extractors.error(name)
        and not issubclass(registry.extractors.load(name), TrainedExtractor)
    ]


def _uses(cell: Cell, context: RunContext) -> dict[str, _Use]:
    """Return what a cell asks of each extractor: its missing metrics, and scores of its epochs."""
    known = context.metrics[cell.kind]
    folder = context.directory.cell(cell)
    asked = [metric for name, metric in known.items() if name in context.asked]
    try:
        missing = _extracting(folder.missing(asked), cell)
    except DamagedFileError:
        missing = _extracting(asked, cell)
    scored: list[type[DistributionMetric]] = []
    selects = cell.kind == MODEL and cell.resolved.epoch_selection == "best_per_metric"
    if selects and not folder.exists(TRAINING_FILE):
        scored = _extracting((m for m in known.values() if m.selects_epochs), cell)
    names = {name for metric in (*missing, *scored) for name in metric.extractors}
    return {name: _use(cell, name, missing, scored) for name in names}


def _use(
    cell: Cell,
    name: str,
    missing: Iterable[type[DistributionMetric]],
    scored: Iterable[type[DistributionMetric]],
) -> _Use:
    once = [metric for metric in missing if name in metric.extractors]
    often = [metric for metric in scored if name in metric.extractors]
    scores = ceil(cell.resolved.epochs / cell.resolved.scored_every)
    passes = bool(once) + scores * bool(often)
    return _Use(cell, tuple(dict.fromkeys((*once, *often))), passes)


def _extracting(metrics: Iterable[type[Metric]], cell: Cell) -> list[type[DistributionMetric]]:
    """Return the metrics of features that are applicable under the cell's protocol."""
    return [
        metric
        for metric in metrics
        if issubclass(metric, DistributionMetric) and not metric(cell.resolved).inapplicable()
    ]


def _cost(
    name: str, uses: list[_Use], resources: Resources, device: torch.device
) -> ExtractionCost:
    extractor: type[Extractor] = registry.extractors.load(name)
    generated = sum(use.generated for use in uses)
    lacking = [file.name for file in extractor.weight_files if file.problem(resources)]
    if lacking:
        reason = f"weights not here: {', '.join(lacking)} (bench weights status)"
        return ExtractionCost(name, generated, None, None, reason)
    try:
        network, pixels = _loaded(extractor, uses[0].cell, resources, device)
        seconds = _seconds_per_image(network, pixels, uses[0].cell.resolved.threads)
    except Exception as error:
        return ExtractionCost(name, generated, None, None, one_line(error))
    dataset = _dataset_images(name, network, uses, resources)
    return ExtractionCost(name, generated, dataset, seconds, None)


def _dataset_images(
    name: str, network: Extractor, uses: Iterable[_Use], resources: Resources
) -> int | None:
    """Return the number of images of all splits that the metrics compare with, each once."""
    sizes: dict[tuple[object, ...], int | None] = {}
    for use in uses:
        info, protocol = use.cell.info, use.cell.resolved
        assert info is not None
        size_of = use.cell.split_sizes
        for metric in use.metrics:
            if metric.of_moments and name in resources.statistics:
                continue
            reference = network.reference_split or protocol.reference_split
            for split in (reference,) if metric.splits is None else metric.splits:
                key = info.fingerprint, protocol.image_size, split, size_of.get(split)
                sizes[key] = size_of.get(split)
    known = [size for size in sizes.values() if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _loaded(
    extractor: type[Extractor], cell: Cell, resources: Resources, device: torch.device
) -> tuple[Extractor, Tensor]:
    """Return the extractor, and a batch of random images of the cell's size, uint8."""
    assert cell.info is not None
    protocol, generator = cell.resolved, torch.Generator().manual_seed(0)
    size = (BATCH, cell.info.channels, protocol.image_size, protocol.image_size)
    pixels = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8).to(device)
    context = ExtractorContext(
        dataset=cell.dataset,
        fingerprint=cell.info.fingerprint,
        protocol=protocol,
        device=device,
        train_images=pixels,
        test_images=pixels,
        resources=resources,
        reporter=WorkReporter(),
    )
    return extractor(context), pixels


def _seconds_per_image(network: Extractor, pixels: Tensor, threads: int) -> float:
    images = to_unit_range(pixels)
    with torch.no_grad(), cpu_threads(threads):
        network(images)
        started = time.perf_counter()
        for _ in range(TIMED_BATCHES):
            network(images)  # Features come back to the CPU, so a GPU has finished.
    return (time.perf_counter() - started) / (TIMED_BATCHES * BATCH)
