"""The passes of a trained model over images, each a stream of batches for the metrics."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bench.batches import evaluation_batches, seed_everything
from bench.metrics.base import Batch, LatentBatch, SamplingTime
from bench.metrics.extractors.base import Extractors
from bench.model import GenerativeModel
from bench.noise import INPUT_NOISE, LATENT_NOISE, LATENT_SHUFFLE, shuffle
from bench.progress import Reporter
from bench.protocol import Protocol
from bench.spikes import recording

RANGE_TOLERANCE = 1e-3
TIMED_BATCHES = 3


@dataclass(frozen=True)
class Passes:
    """The passes of one model in evaluation mode; run them without gradient.

    Each starts from the seed, so that none depends on which others ran.

    Attributes:
        model: in evaluation mode, on its device.
        train_images: uint8 ``(N, C, H, W)``, on the same device.
        test_images: uint8, alike.
        train_labels: ``(N,)`` int64, None where unknown.
        test_labels: alike.
        protocol: resolved for the model and dataset.
        seed: of everything drawn.
        extractors: handed on with the batches.
        reporter: is told of the progress.
    """

    model: GenerativeModel
    train_images: Tensor
    test_images: Tensor
    train_labels: Tensor | None
    test_labels: Tensor | None
    protocol: Protocol
    seed: int
    extractors: Extractors | None
    reporter: Reporter

    def reconstructions(self) -> Iterator[Batch]:
        """Every test image once, reconstructed."""
        generator = self._seeded()
        total, done = len(self.test_images), 0
        for originals in self.test_batches():
            with recording(self.model.spiking_layers(), self.model.activation_layers()) as activity:
                images = self.model.reconstruct(originals, generator)
            _check_images(images, originals.shape, "reconstruct")
            done += len(images)
            self.reporter.evaluated("reconstructing", done, total)
            yield Batch("test", images, originals, activity, extractors=self.extractors)

    def generated(self) -> Iterator[Batch]:
        """``generated_images`` samples."""
        generator = self._seeded()
        for n in self._sizes(self.protocol.generated_images, "sampling"):
            with recording(self.model.spiking_layers(), self.model.activation_layers()) as activity:
                images = self.model.sample(n, generator)
            _check_images(images, (n, *self.test_images.shape[1:]), "sample")
            yield Batch("generated", images, None, activity, extractors=self.extractors)

    def noisy_reconstructions(self) -> Iterator[Batch]:
        """The first ``noise_images`` test images, reconstructed under each noise and level.

        Noise is drawn from the seed, its kind and the batch, never by the model: every model gets
        the same on its input, and every latent of the same shape the same. The model's own draws
        are those of the noise-free reconstruction.
        """
        able = self.model.capabilities
        images = self.test_images[: self.protocol.noise_images]
        for i, originals in enumerate(self._batches(images, "under noise")):
            if {"encode", "decode"} <= able:
                latents = self.model.encode(originals, self._seeded())
                clean = self.model.decode(latents)
                for kind, level, noisy in self._noisy_latents(latents, i):
                    decoded = self.model.decode(noisy)
                    yield self._noisy(decoded, originals, clean, kind, level)
            clean = self.model.reconstruct(originals, self._seeded())
            for kind, level, noisy in self._noisy_inputs(originals, i):
                decoded = self.model.reconstruct(noisy, self._seeded())
                yield self._noisy(decoded, originals, clean, kind, level)

    def partial_decodings(self) -> Iterator[Batch]:
        """Reconstructions and samples, decoded from the first t = 1..T time steps only."""
        generator = self._seeded()
        limit = self.protocol.time_step_images
        for originals in self._batches(self.test_images[:limit], "by time steps"):
            latents = self.model.encode(originals, generator)
            for t, images in self._prefixes(latents):
                yield Batch("test", images, originals, {}, time_step=t, extractors=self.extractors)
        if "sample_latents" not in self.model.capabilities:
            return
        generator = self._seeded()
        for n in self._sizes(min(limit, self.protocol.generated_images), "by time steps"):
            latents = self.model.sample_latents(n, generator)
            for t, images in self._prefixes(latents):
                yield Batch("generated", images, None, {}, time_step=t, extractors=self.extractors)

    def latents(self) -> Iterator[LatentBatch]:
        """The posterior's latents of training and test images, and as many of the prior's.

        At most ``latent_images`` of each.
        """
        limit = self.protocol.latent_images
        yield from self._posterior("train", self.train_images[:limit], self.train_labels)
        yield from self._posterior("test", self.test_images[:limit], self.test_labels)
        if "sample_latents" in self.model.capabilities:
            generator = self._seeded()
            for n in self._sizes(min(limit, len(self.test_images)), "latents of the prior"):
                yield LatentBatch("prior", self.model.sample_latents(n, generator), None)

    def sampling_time(self) -> SamplingTime:
        """How long ``sample`` takes, after one call to warm up."""
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
        """Every test image once, in [-1, 1], flipped where the protocol says so."""
        flips = None
        if self.protocol.horizontal_flip == "train_and_test":
            flips = torch.Generator().manual_seed(self.seed)
        return evaluation_batches(self.test_images, self.protocol.evaluation_batch_size, flips)

    def _seeded(self) -> torch.Generator:
        seed_everything(self.seed)
        return torch.Generator(self.model.device).manual_seed(self.seed)

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
        generator = self._seeded()
        start = 0
        for batch in self._batches(images, f"latents of {split} images"):
            known = None if labels is None else labels[start : start + len(batch)]
            start += len(batch)
            yield LatentBatch(split, self.model.encode(batch, generator), known)

    def _prefixes(self, latents: Tensor) -> Iterator[tuple[int, Tensor]]:
        for t in range(1, len(latents) + 1):
            yield t, self.model.decode(latents[:t])

    def _noisy_latents(
        self, latents: Tensor, batch: int
    ) -> Iterator[tuple[str, float | None, Tensor]]:
        for kind, noise in LATENT_NOISE.items():
            for level in self.protocol.noise_levels:
                yield kind, level, noise(latents, level, self._noise_generator(kind, batch))
        if latents.ndim == 3:
            generator = self._noise_generator(LATENT_SHUFFLE, batch)
            yield LATENT_SHUFFLE, None, shuffle(latents, generator)

    def _noisy_inputs(self, images: Tensor, batch: int) -> Iterator[tuple[str, float, Tensor]]:
        for kind, noise in INPUT_NOISE.items():
            for level in self.protocol.noise_levels:
                yield kind, level, noise(images, level, self._noise_generator(kind, batch))

    def _noise_generator(self, kind: str, batch: int) -> torch.Generator:
        """On the CPU. Levels share their draws, so that a curve varies by its level alone."""
        kinds = [*LATENT_NOISE, LATENT_SHUFFLE, *INPUT_NOISE]
        seed = self.seed + 1_000_003 * (kinds.index(kind) + 1) + 7_919 * batch
        return torch.Generator().manual_seed(seed)

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


def _check_images(images: Tensor, shape: tuple[int, ...], method: str) -> None:
    """Raise ValueError unless a model's images are as its contract says."""
    if images.shape != shape:
        raise ValueError(
            f"{method} gave images of shape {tuple(images.shape)}, expected {tuple(shape)}"
        )
    lowest, highest = images.min().item(), images.max().item()
    if lowest < -1 - RANGE_TOLERANCE or highest > 1 + RANGE_TOLERANCE:
        raise ValueError(f"{method} gave values in {lowest:g}..{highest:g}, expected [-1, 1]")
