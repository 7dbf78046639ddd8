"""Cost of metrics, known before a run: images for each extractor, and seconds of a few of them."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from bench import registry
from bench.datasets.batches import to_unit_range
from bench.errors import one_line
from bench.execution.run_context import RunContext
from bench.metrics.extractors.extractor import Extractor, ExtractorContext, TrainedExtractor
from bench.metrics.metric import Metric
from bench.plan.cells import Cell
from bench.plan.run_plan import Plan
from bench.system.checksums import DamagedFileError
from bench.system.paths import Resources
from bench.system.progress import WorkReporter
from bench.system.threads import cpu_threads

# After one batch to warm up.
TIMED_BATCHES = 2
BATCH = 8


@dataclass(frozen=True)
class ExtractionCost:
    """Images whose features one extractor computes in a run.

    Attributes:
        extractor: registered name.
        generated: number of generated images, counted once per cell and per scored epoch.
        reference: number of reference images that are not in the cache of an earlier run, at most.
        seconds_per_image: measured seconds per image; None if the extractor cannot be used here.
        reason: why it cannot be used; None if it can.
    """

    extractor: str
    generated: int
    reference: int
    seconds_per_image: float | None
    reason: str | None

    @property
    def minutes(self) -> float | None:
        """Minutes for all images; None if the extractor cannot be used here."""
        if self.seconds_per_image is None:
            return None
        return self.seconds_per_image * (self.generated + self.reference) / 60


def extraction_costs(plan: Plan, context: RunContext, device: torch.device) -> list[ExtractionCost]:
    """Return the cost of each extractor that missing metrics need and that is not trained.

    Nothing is downloaded. An extractor is timed on a few random images of the size of the first
    cell that needs it.

    Args:
        plan: cells of the run.
        context: context of the run.
        device: device of the run.
    """
    uses: dict[str, list[tuple[Cell, int]]] = {}
    for cell in plan.cells:
        if not cell.skipped and not cell.is_prerequisite:
            for name, images in _generated(cell, context).items():
                uses.setdefault(name, []).append((cell, images))
    return [
        _cost(name, cells, context.resources, device)
        for name, cells in sorted(uses.items())
        if not registry.extractors.error(name)
        and not issubclass(registry.extractors.load(name), TrainedExtractor)
    ]


def _generated(cell: Cell, context: RunContext) -> dict[str, int]:
    """Return the number of generated images that a cell shows to each extractor."""
    metrics = context.metrics[cell.kind]
    asked = [metric for name, metric in metrics.items() if name in context.asked]
    try:
        undone = context.directory.cell(cell).missing(asked)
    except DamagedFileError:
        undone = asked
    missing = [
        metric
        for metric in undone
        if "features" in metric.needs and not metric(cell.resolved).inapplicable()
    ]
    passes = {name: 1 for metric in missing for name in metric.extractors}
    if cell.resolved.epoch_selection == "best_per_metric":
        for name in _scored(metrics.values()):
            passes[name] = passes.get(name, 0) + cell.resolved.epochs
    return {name: count * cell.resolved.generated_images for name, count in passes.items()}


def _scored(metrics: Iterable[type[Metric]]) -> set[str]:
    """Return the extractors of the metrics that select epochs."""
    return {name for metric in metrics if metric.selects_epochs for name in metric.extractors}


def _cost(
    name: str, uses: list[tuple[Cell, int]], resources: Resources, device: torch.device
) -> ExtractionCost:
    extractor: type[Extractor] = registry.extractors.load(name)
    lacking = [file.name for file in extractor.weight_files if file.problem(resources)]
    reason = f"weights not here: {', '.join(lacking)} (bench weights status)" if lacking else None
    seconds = None
    if reason is None:
        try:
            seconds = _seconds_per_image(extractor, uses[0][0], resources, device)
        except Exception as error:
            reason = one_line(error)
    reference = 0 if name in resources.statistics else sum(_reference_images(uses))
    return ExtractionCost(name, sum(images for _, images in uses), reference, seconds, reason)


def _reference_images(uses: Iterable[tuple[Cell, int]]) -> Iterator[int]:
    """Yield the number of reference images of each dataset and preprocessing."""
    known = set()
    for cell, _ in uses:
        info, protocol = cell.info, cell.resolved
        assert info is not None
        key = (info.fingerprint, protocol.image_size, protocol.reference_split)
        if key in known:
            continue
        known.add(key)
        if protocol.reference_split == "train":
            yield cell.train_size
        else:
            yield min(info.test_size, protocol.test_images or info.test_size)


def _seconds_per_image(
    extractor: type[Extractor], cell: Cell, resources: Resources, device: torch.device
) -> float:
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
    network, images = extractor(context), to_unit_range(pixels)
    with torch.no_grad(), cpu_threads(protocol.threads):
        network(images)
        started = time.perf_counter()
        for _ in range(TIMED_BATCHES):
            network(images)  # Features come back to the CPU, so a GPU has finished.
    return (time.perf_counter() - started) / (TIMED_BATCHES * BATCH)
