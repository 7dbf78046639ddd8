"""Reference statistics of a dataset or of images that exist, for other programs and other runs."""

from pathlib import Path

import torch
from torch import Tensor

from bench import registry
from bench.datasets.batches import evaluation_batches
from bench.datasets.dataset_contract import load_images
from bench.datasets.given_images import GivenImages, given_images
from bench.datasets.resolve import is_path
from bench.errors import BenchError, SkippedError
from bench.evaluation.given_outputs import in_unit_range
from bench.metrics.extractors.extractor import REFERENCE_BATCH, ExtractorContext, Extractors
from bench.metrics.extractors.reference_statistics import Provenance, ReferenceStatistics
from bench.metrics.frechet import Moments, moments
from bench.plan.requested_datasets import requested_datasets
from bench.request import RunRequest
from bench.system.paths import Resources
from bench.system.progress import WorkReporter

SPLITS = ("train", "test", "validation")


def reference_statistics(
    request: RunRequest,
    resources: Resources,
    extractor: str,
    split: str | None,
    device: torch.device,
    reporter: WorkReporter,
) -> ReferenceStatistics:
    """Return the statistics of a dataset's split, or of all images of a folder or file.

    Args:
        request: one dataset, or one folder or file, and the protocol that prepares a dataset.
        resources: data root, weight files and cache folder.
        extractor: registered name of the extractor.
        split: ``train``, ``test`` or ``validation``; None for the one that metrics compare with.
        device: device that the extractor runs on.
        reporter: receives the progress.

    Raises:
        BenchError: the images or the extractor are unavailable, or there are fewer than two images.
    """
    (source,) = request.dataset_names
    try:
        if not is_path(source) and source not in registry.datasets and Path(source).exists():
            if split is not None:
                raise BenchError(f"{source} has no splits: all its images are used.")
            images = given_images(source, request.value_range)
            context = _context_of(images, request, resources, device, reporter)
            return _of_images(images, extractor, context)
        context = _context(request, resources, device, reporter)
        return _of_dataset(extractor, split, context)
    except SkippedError as error:
        raise BenchError(str(error)) from error


def _of_images(
    images: GivenImages, extractor: str, context: ExtractorContext
) -> ReferenceStatistics:
    network, seen = Extractors(context).get(extractor), Moments()
    pixels = torch.from_numpy(images.pixels)
    with torch.no_grad():
        for batch in pixels.split(REFERENCE_BATCH):
            seen.update(network(in_unit_range(batch)).pool)
            context.reporter.evaluated(extractor, seen.n, len(images))
    return _statistics(images.source, None, extractor, seen, context)


def _of_dataset(extractor: str, split: str | None, context: ExtractorContext) -> ReferenceStatistics:
    extractors = Extractors(context)
    split = split or extractors.reference_split(extractor)
    if split == extractors.reference_split(extractor):
        pool = extractors.reference(extractor).pool
    else:
        network, images = extractors.get(extractor), context.images_of(split)
        with torch.no_grad():
            batches = evaluation_batches(images, network.reference_batch)
            pool = torch.cat([network(batch).pool for batch in batches])
    return _statistics(context.dataset, split, extractor, moments(pool), context)
