"""The passes of a trained model over images, each a stream of batches for the metrics."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bench.datasets.batches import evaluation_batches
from bench.metrics.extractors.extractor import Extractors
from bench.metrics.metric import Batch, LatentBatch, SamplingTime
from bench.metrics.noise import (
    INPUT_NOISE,
    LATENT_NOISE,
    LATENT_SHUFFLE,
    NO_NOISE,
    NoiseStream,
    derived_seed,
    shuffle,
)
from bench.model import GenerativeModel
from bench.protocol import Protocol
from bench.recording.spikes import recording
from bench.system.progress import WorkReporter
from bench.system.random_state import seed_everything

RANGE_TOLERANCE = 1e-3
TIMED_BATCHES = 3


@dataclass(frozen=True)
class Passes:
    """The passes of one model in evaluation mode; run them without gradient.

    Each pass starts from the seed, so that no pass depends on another.

    Attributes:
        model: model in evaluation mode, on its device.
        train_images: training images, uint8 ``(N, C, H, W)``, on the model's device.
        test_images: test images, uint8 ``(N, C, H, W)``, on the model's device.
        train_labels: labels of the training images, int64 ``(N,)``; None where unknown.
        test_labels: labels of the test images, int64 ``(N,)``; None where unknown.
        protocol: protocol resolved for the model and dataset.
        seed: seed of every random draw.
        extractors: feature extractors, passed on with the batches.
        reporter: receiver of the progress.
    """

    model: GenerativeModel
    train_images: Tensor
    test_images: Tensor
    train_labels: Tensor | None
    test_labels: Tensor | None
    protocol: Protocol
    seed: int
    extractors: Extractors | None
    reporter: WorkReporter

    def reconstructions(self) -> Iterator[Batch]:
        """Yield batches of all test images and their reconstructions."""
        generator = self._seeded()
        total, done = len(self.test_images), 0
        for originals in self.test_batches():
            with recording(self.model, len(originals)) as activity:
                images = self.model.reconstruct(originals, generator)
            check_images(images, originals.shape, "reconstruct")
            done += len(images)
            self.reporter.evaluated("reconstructing", done, total)
            yield Batch("test", images, originals, activity, extractors=self.extractors)

    def generated(self) -> Iterator[Batch]:
        """Yield batches of ``generated_images`` samples."""
        generator = self._seeded()
        for n in self._sizes(self.protocol.generated_images, "sampling"):
            with recording(self.model, n) as activity:
                images = self.model.sample(n, generator)
            check_images(images, (n, *self.test_images.shape[1:]), "sample")
            yield Batch("generated", images, None, activity, extractors=self.extractors)

    def noisy_reconstructions(self) -> Iterator[Batch]:
        """Yield reconstructions of the first ``noise_images`` images under each noise.

        Noise is drawn from the seed, its kind and the image, never by the model: every model gets
        the same noise on its input, and every latent of the same shape the same noise. The model's
        own sampling uses the same random state with and without noise. The noise-free output
        (``reconstruct`` for noise on the input, also yielded as the kind ``none``; ``decode`` for
        noise on the latent) is passed along as ``noise_free``.
        """
        images = self.test_images[: self.protocol.noise_images]
        first = 0
        for originals in self._batches(images, "under noise"):
            yield from self._under_input_noise(originals, first)
            if {"encode", "decode"} <= self.model.capabilities:
                yield from self._under_latent_noise(originals, first)
            first += len(originals)

    def partial_decodings(self) -> Iterator[Batch]:
        """Yield reconstructions and samples decoded from the first t = 1..T time steps only.

        Their latents equal the latents of the first images in the passes over reconstructions and
        samples, if the model's draws do not depend on the batch size.
        """
        generator = self._seeded()
        limit = self.protocol.time_step_images
        for originals in self._batches(self.test_images[:limit], "by time steps"):
            latents = self._encoded(originals, generator)
            for t, images in self._prefixes(latents, originals.shape):
                yield Batch("test", images, originals, {}, time_step=t, extractors=self.extractors)
        if "sample_latents" not in self.model.capabilities:
            return
        generator = self._seeded()
        for n in self._sizes(min(limit, self.protocol.generated_images), "by time steps"):
            latents = self._prior(n, generator)
            for t, images in self._prefixes(latents, (n, *self.test_images.shape[1:])):
                yield Batch("generated", images, None, {}, time_step=t, extractors=self.extractors)

    def latents(self) -> Iterator[LatentBatch]:
        """Yield latents of training images, of test images and of the prior.

        There are at most ``latent_images`` of each. The three are drawn independently: shared draws
        would pair posterior and prior and make them seem closer than they are.
        """
        limit = self.protocol.latent_images
        yield from self._posterior("train", self.train_images[:limit], self.train_labels)
        yield from self._posterior("test", self.test_images[:limit], self.test_labels)
        if "sample_latents" in self.model.capabilities:
            generator = self._seeded("latents", "prior")
            for n in self._sizes(min(limit, len(self.test_images)), "latents of the prior"):
                yield LatentBatch("prior", self._prior(n, generator), None)

    def sampling_time(self) -> SamplingTime:
        """Return how long ``sample`` takes, after one call to warm up."""
        generator = self._seeded()
        n = min(self.protocol.evaluation_batch_size, self.protocol.generated_images)
        seconds = []
        for _ in range(1 + TIMED_BATCHES):
            started = time.perf_counter()
            self.model.sample(n, generator)
            if self.model.device.type == "cuda":
                torch.cuda.synchronize(self.model.device)
            seconds.append(time.perf_counter() - started)
        return SamplingTime(n, tuple(seconds[1:]))

    def test_batches(self) -> Iterator[Tensor]:
        """Yield test images ``(N, C, H, W)`` in [-1, 1], flipped if the protocol says so."""
        flips = None
        if self.protocol.horizontal_flip == "train_and_test":
            flips = torch.Generator().manual_seed(self.seed)
        return evaluation_batches(self.test_images, self.protocol.evaluation_batch_size, flips)

    def _seeded(self, *stream: object) -> torch.Generator:
        """Return a generator seeded by the cell's seed, or by a named stream of it."""
        seed = derived_seed(self.seed, *stream) if stream else self.seed
        seed_everything(seed)
        return torch.Generator(self.model.device).manual_seed(seed)

    def _batches(self, images: Tensor, stage: str) -> Iterator[Tensor]:
        done = 0
        for batch in evaluation_batches(images, self.protocol.evaluation_batch_size):
            yield batch
            done += len(batch)
            self.reporter.evaluated(stage, done, len(images))

    def _sizes(self, total: int, stage: str) -> Iterator[int]:
        size = self.protocol.evaluation_batch_size
        for start in range(0, total, size):
            n = min(size, total - start)
            yield n
            self.reporter.evaluated(stage, start + n, total)

    def _posterior(
        self, split: Literal["train", "test"], images: Tensor, labels: Tensor | None
    ) -> Iterator[LatentBatch]:
        generator = self._seeded("latents", split)
        start = 0
        for batch in self._batches(images, f"latents of {split} images"):
            known = None if labels is None else labels[start : start + len(batch)]
            start += len(batch)
            yield LatentBatch(split, self._encoded(batch, generator), known)

    def _encoded(self, images: Tensor, generator: torch.Generator) -> Tensor:
        latents = self.model.encode(images, generator)
        _check_latents(latents, len(images), self.model.spiking, "encode")
        return latents

    def _prior(self, n: int, generator: torch.Generator) -> Tensor:
        latents = self.model.sample_latents(n, generator)
        _check_latents(latents, n, self.model.spiking, "sample_latents")
        return latents

    def _decoded(self, latents: Tensor, shape: tuple[int, ...]) -> Tensor:
        images = self.model.decode(latents)
        check_images(images, shape, "decode")
        return images

    def _prefixes(self, latents: Tensor, shape: tuple[int, ...]) -> Iterator[tuple[int, Tensor]]:
        for t, images in enumerate(self.model.decode_prefixes(latents), start=1):
            check_images(images, shape, "decode_prefixes")
            yield t, images

    def _under_input_noise(self, originals: Tensor, first: int) -> Iterator[Batch]:
        def reconstructed(images: Tensor) -> Tensor:
            found = self.model.reconstruct(images, self._seeded("under noise", first))
            check_images(found, originals.shape, "reconstruct")
            return found

        clean = reconstructed(originals)
        yield self._noisy(clean, originals, clean, NO_NOISE, 0.0)
        for kind, noise in INPUT_NOISE.items():
            draws = NoiseStream(self.seed, kind, first)
            for level in self.protocol.noise_levels:
                images = reconstructed(noise(originals, level, draws))
                yield self._noisy(images, originals, clean, kind, level)

    def _under_latent_noise(self, originals: Tensor, first: int) -> Iterator[Batch]:
        def decoded(latents: Tensor) -> Tensor:
            self._seeded("decoding under noise", first)
            return self._decoded(latents, originals.shape)

        latents = self._encoded(originals, self._seeded("under noise", first))
        clean = decoded(latents)
        for kind, level, noisy in self._noisy_latents(latents, first):
            yield self._noisy(decoded(noisy), originals, clean, kind, level)

    def _noisy_latents(
        self, latents: Tensor, first: int
    ) -> Iterator[tuple[str, float | None, Tensor]]:
        for kind, noise in LATENT_NOISE.items():
            draws = NoiseStream(self.seed, kind, first)
            for level in self.protocol.noise_levels:
                yield kind, level, noise(latents, level, draws)
        if latents.ndim == 3:
            draws = NoiseStream(self.seed, LATENT_SHUFFLE, first)
            yield LATENT_SHUFFLE, None, shuffle(latents, draws)

    def _noisy(
        self, images: Tensor, originals: Tensor, clean: Tensor, kind: str, level: float | None
    ) -> Batch:
        return Batch(
            "test",
            images,
            originals,
            {},
            noise_kind=kind,
            noise_level=level,
            noise_free=clean,
            extractors=self.extractors,
        )


def check_images(images: Tensor, shape: tuple[int, ...], method: str) -> None:
    """Raise ValueError unless a model's images satisfy its contract.

    Args:
        images: the model's output, expected ``(N, C, H, W)`` in [-1, 1].
        shape: expected shape.
        method: name of the model's method, for the message.
    """
    if images.shape != shape:
        raise ValueError(
            f"{method} gave images of shape {tuple(images.shape)}, expected {tuple(shape)}"
        )
    lowest, highest = images.min().item(), images.max().item()
    if lowest < -1 - RANGE_TOLERANCE or highest > 1 + RANGE_TOLERANCE:
        raise ValueError(f"{method} gave values in {lowest:g}..{highest:g}, expected [-1, 1]")


def _check_latents(latents: Tensor, n: int, spiking: bool, method: str) -> None:
    """Raise ValueError unless a model's latents are as its contract says."""
    expected = f"(T, {n}, D)" if spiking else f"({n}, D)"
    if latents.ndim != (3 if spiking else 2) or latents.shape[-2] != n:
        raise ValueError(
            f"{method} gave latents of shape {tuple(latents.shape)}, expected {expected}"
        )
    if spiking and not ((latents == 0) | (latents == 1)).all():
        raise ValueError(f"{method} gave latents that are no spikes, expected values in {{0, 1}}")
