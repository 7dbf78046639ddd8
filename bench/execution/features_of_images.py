"""Reference statistics of a dataset or of images that exist, for other programs and other runs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bench import registry
from bench.datasets.dataset_contract import load_images
from bench.datasets.given_images import given_images
from bench.datasets.resolve import is_path
from bench.errors import BenchError, SkippedError
from bench.evaluation.given_outputs import in_unit_range
from bench.execution.references import checked_extractor
from bench.metrics.extractors.extractor import REFERENCE_BATCH, ExtractorContext, Extractors
from bench.metrics.extractors.reference_statistics import (
    SUFFIX,
    Provenance,
    ReferenceStatistics,
)
from bench.metrics.frechet import Moments, moments
from bench.plan.requested_datasets import requested_datasets
from bench.protocol import Protocol
from bench.request import StatisticsRequest
from bench.system.paths import Resources
from bench.system.progress import Reporter, WorkReporter

SPLITS = ("train", "test", "validation")


def check_file(out: Path) -> None:
    """Check that statistics can be written to a path, before they are computed.

    Raises:
        BenchError: it has another suffix, or exists.
    """
    if out.suffix != SUFFIX:
        raise BenchError(f"{out}: expected a file {SUFFIX}.")
    if out.exists():
        raise BenchError(f"{out} exists: choose another path, or delete it.")


def reference_statistics(
    request: StatisticsRequest, resources: Resources, device: torch.device
) -> ReferenceStatistics:
    """Return the statistics of a dataset's split, or of all images of a folder or file.

    Args:
        request: images and extractor.
        resources: data root, weight files and cache folder.
        device: device that the extractor runs on.

    Raises:
        BenchError: images or extractor are unavailable, or there are fewer than two images.
    """
    extractor, source = checked_extractor(request.extractor), request.images
    if request.split not in {None, *SPLITS}:
        raise BenchError(f"Split {request.split!r}: expected {', '.join(SPLITS)}.")
    with _reported(request.reporter, f"{extractor} of {source}") as reporter:
        if _are_images(source):
            return _of_images(request, resources, device, reporter)
        return _of_dataset(request, resources, device, reporter)


def _are_images(source: str) -> bool:
    known = source in registry.datasets or is_path(source)
    return not known and Path(source).expanduser().exists()


@contextmanager
def _reported(reporter: Reporter | None, title: str) -> Iterator[WorkReporter]:
    """Report the work as one cell; an extractor that is unavailable is an error here."""
    started, work = time.perf_counter(), (reporter or Reporter()).started(1, 1, title)
    try:
        yield work
    except SkippedError as error:
        raise BenchError(str(error)) from error
    work.ended("ok", time.perf_counter() - started)


def _of_images(
    request: StatisticsRequest, resources: Resources, device: torch.device, reporter: WorkReporter
) -> ReferenceStatistics:
    if request.split is not None:
        raise BenchError(f"{request.images} has no splits: all its images are used.")
    images = given_images(request.images, request.base.value_range)
    pixels = torch.from_numpy(images.pixels)
    context = ExtractorContext(
        dataset=images.source,
        fingerprint=images.sha256,
        protocol=request.base.full_protocol.resolve("", images.source),
        device=device,
        train_images=pixels,
        test_images=pixels,
        resources=resources,
        reporter=reporter,
    )
    extractors, seen = Extractors(context), Moments()
    extractor = extractors.get(request.extractor)
    with torch.no_grad():
        for batch in pixels.split(REFERENCE_BATCH):
            seen.update(extractor(in_unit_range(batch.to(device))).pool)
            reporter.evaluated("features", seen.n, len(images))
    return _statistics(request.extractor, None, seen, extractors)


def _of_dataset(
    request: StatisticsRequest, resources: Resources, device: torch.device, reporter: WorkReporter
) -> ReferenceStatistics:
    (requested,) = requested_datasets(request.base, download=True)
    assert requested.dataset is not None
    assert requested.info is not None
    protocol = _protocol(request, requested.name)
    data = load_images(requested.dataset, requested.info, protocol)
    tensors = {
        split: torch.from_numpy(images.images).to(device)
        for split in SPLITS
        if (images := getattr(data, split)) is not None
    }
    context = ExtractorContext(
        dataset=requested.name,
        fingerprint=requested.info.fingerprint,
        protocol=protocol,
        device=device,
        train_images=tensors["train"],
        test_images=tensors["test"],
        validation_images=tensors.get("validation"),
        resources=resources,
        reporter=reporter,
    )
    extractors = Extractors(context)
    split = request.split or extractors.reference_split(request.extractor)
    seen = moments(extractors.of_split(request.extractor, split).pool)
    return _statistics(request.extractor, split, seen, extractors)


def _protocol(request: StatisticsRequest, dataset: str) -> Protocol:
    """Return the protocol for a dataset, with the validation split loaded if it is asked for."""
    protocol = request.base.full_protocol
    if request.split == "validation":
        protocol = protocol.customised({"official_fid_split": "validation"})
    return protocol.resolve("", dataset)


def _statistics(
    name: str, split: str | None, seen: Moments, extractors: Extractors
) -> ReferenceStatistics:
    source, extractor = extractors.context.dataset, extractors.get(name)
    if seen.n < 2:
        raise BenchError(f"{source} has {seen.n} images: statistics need at least 2.")
    provenance = Provenance(
        source=source,
        split=split,
        images=seen.n,
        extractor=name,
        description=extractor.description,
        extractor_sha256=extractor.sha256,
    )
    return ReferenceStatistics(seen.mean, seen.covariance, provenance)
