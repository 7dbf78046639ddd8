"""Duration of the Fréchet distance and of neighbour searches, and memory of a stream of images."""

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import scipy.linalg
import torch

from bench.metrics.extractors.extractor import ExtractorContext, Extractors
from bench.metrics.fad import FAD
from bench.metrics.feature_pairs import GeneratedFeatures
from bench.metrics.frechet import frechet_distance, moments
from bench.metrics.metric import ModelFacts
from bench.metrics.neighbours import neighbourhoods
from bench.protocol import load_protocol
from bench.recording.training_record import TrainingRecord
from bench.system.devices import PeakMemoryMeter
from bench.system.paths import Resources
from bench.system.progress import WorkReporter

DIMENSIONS = 2048
STREAMS = (1_000, 10_000)


def frechet_distance_against_sqrtm():
    """Yield the seconds of our distance of 2,048 features, and of scipy's matrix square root."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn((2, 5_000, DIMENSIONS), generator=generator)
    one, two = (
        moments(f @ torch.randn(DIMENSIONS, DIMENSIONS, generator=generator) / 45) for f in features
    )
    parts = (one.mean, one.covariance, two.mean, two.covariance)
    started = time.perf_counter()
    ours = frechet_distance(*parts)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    root = scipy.linalg.sqrtm(one.covariance @ two.covariance).real
    theirs = np.square(one.mean - two.mean).sum() + np.trace(
        one.covariance + two.covariance - 2 * root
    )
    seconds_sqrtm = time.perf_counter() - started
    yield "Fréchet distance, 2,048 features", "s", seconds
    yield "the same by scipy.linalg.sqrtm", "s", seconds_sqrtm
    yield "their relative difference", "1", abs(ours / theirs - 1)


def neighbour_search():
    """Yield the seconds of the neighbour search behind precision, recall, density and coverage."""
    generator = np.random.default_rng(0)
    generated, reference = (generator.normal(size=(n, DIMENSIONS)) for n in (5_000, 10_000))
    started = time.perf_counter()
    neighbourhoods(generated, reference, 5)
    yield "neighbours, 5,000 and 10,000 images", "s", time.perf_counter() - started


def memory_of_a_stream():
    """Yield the peak memory while FAD is computed from 1,000 and 10,000 generated images."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as fresh:
        peaks = list(fresh.map(_peak_memory, STREAMS))
    for images, peak in zip(STREAMS, peaks, strict=True):
        yield f"peak memory, FAD of {images:,} images", "MiB", peak / 2**20
    yield "ratio of the two", "1", peaks[1] / peaks[0]


def _peak_memory(images):
    generator = torch.Generator().manual_seed(0)
    few = torch.randint(0, 256, (250, 1, 32, 32), generator=generator, dtype=torch.uint8)
    protocol = load_protocol("smoke", ["autoencoder_epochs=1"])
    with tempfile.TemporaryDirectory() as folder:
        cpu, resources = torch.device("cpu"), Resources(Path(folder), {}, Path(folder))
        extractors = Extractors(
            ExtractorContext(
                dataset="noise",
                fingerprint="none",
                protocol=protocol,
                device=cpu,
                train_images=few,
                test_images=few,
                resources=resources,
                reporter=WorkReporter(),
            )
        )
        metric = FAD(protocol)
        features = GeneratedFeatures(extractors)
        extractors.get("autoencoder")
        memory = PeakMemoryMeter(cpu)
        with torch.no_grad():
            for _ in range(images // 250):
                batch = torch.rand((250, 1, 32, 32), generator=generator) * 2 - 1
                features.add("autoencoder", batch)
        list(
            metric.compute(
                ModelFacts(0, 0, TrainingRecord((), {}, None), None, extractors, features)
            )
        )
        return memory.bytes()


BENCHMARKS = (frechet_distance_against_sqrtm, neighbour_search, memory_of_a_stream)
