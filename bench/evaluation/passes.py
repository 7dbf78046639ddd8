"""Passes of a trained model over images, each a stream of batches for the metrics."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from bench.datasets.batches import batch_count, evaluation_batches, to_unit_range
from bench.datasets.preprocessing import draw
from bench.evaluation.class_labels import ClassLabels, drawn_labels, labels_for
from bench.evaluation.context import CellContext
from bench.evaluation.finished_samples import FinishedSamples
from bench.evaluation.model_calls import ModelCalls
from bench.evaluation.network_evaluations import EvaluationCounter
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
from bench.model import GenerativeModel, Step, begin_last_stage
from bench.recording.layer_activity import LayerActivity, NotRecorded
from bench.recording.spikes import recording
from bench.system.random_state import preserved_randomness, seed_everything

RANGE_TOLERANCE = 1e-3
TIMED_BATCHES = 3
NOISE_BATCH = 250
NOISE_BATCH_PIXELS = NOISE_BATCH * 32 * 32


_Calls = GenerativeModel | ModelCalls


@dataclass(frozen=True)
class Passes:
    """The passes of one model over images. Run them without gradients.

    Each pass starts from the seed, so that it does not depend on which passes ran before. A pass
    over a part of a split draws its images from the whole split with a fixed seed: the order of
    the files or classes does not matter, and every model, backend and seed gets the same images.

    Attributes:
        model: model in evaluation mode, on the device of the context's images.
        context: data and settings of the model's cell.
        extractors: source of the images' features; None if no metric needs them.
        calls: calls of the model, whose graphs are kept from pass to pass; None to make new ones.
        recorded: True to record the activity of the model's layers in the passes over
            reconstructions and generated images, where each call then runs as it is.
        finished: samples that an interrupted evaluation has drawn; None to keep none.
    """

    model: GenerativeModel
    context: CellContext
    extractors: Extractors | None = None
    calls: ModelCalls | None = None
    recorded: bool = True
    finished: FinishedSamples | None = None

    def reconstructions(self) -> Iterator[Batch]:
        """Yield every test image once, with its reconstruction ``(N, C, H, W)``."""
        generator = self._seeded()
        labels = labels_for(self.model, self.context.test_labels)
        total, done = len(self.context.test_images), 0
        for originals in self.test_batches():
            with self._recording(len(originals)) as (calls, activity):
                images = calls.reconstruct(originals, generator, **labels.of(done, len(originals)))
            check_images(images, originals.shape, "reconstruct")
            images = _in_plain_layout(images)
            done += len(images)
            self.context.reporter.evaluated("reconstructing", done, total)
            yield Batch("test", images, originals, activity, extractors=self.extractors)

    def generated(self) -> Iterator[Batch]:
        """Yield the protocol's ``generated_images`` samples, ``(N, C, H, W)``.

        Of a sampler of many steps, activity is recorded in the first batch only, and finished
        batches after it are kept.
        """
        generator = self._seeded()
        total = self.context.protocol.generated_images
        labels = self._drawn_labels(total)
        network = self.model.sampling_network()
        counter = EvaluationCounter(network, self.context.reporter, total)
        for start, n in self._parts(total, "sampling"):
            passes = replace(self, recorded=False) if network is not None and start else self
            images = self.finished.load(start, generator) if self.finished and start else None
            if images is None:
                with counter.batch(start):
                    batch = passes._sampled(n, generator, labels.of(start, n))
                if network is not None and passes.recorded:
                    batch = replace(batch, network_evaluations=counter.evaluations)
                if self.finished and start:
                    self.finished.keep(start, batch.images, generator)
            else:
                batch = Batch("generated", images, None, NotRecorded(), extractors=self.extractors)
            yield batch

    def _sampled(self, n: int, generator: torch.Generator, labels: Mapping[str, Tensor]) -> Batch:
        """Return n samples, with the activity of the model's layers.

        Args:
            n: number of samples.
            generator: source of the model's random draws.
            labels: ``labels``, int64 ``(n,)``, of a class-conditional model.
        """
        with self._recording(n) as (calls, activity):
            images = calls.sample(n, generator, **labels)
        check_images(images, (n, *self.context.test_images.shape[1:]), "sample")
        return Batch(
            "generated",
            _in_plain_layout(images),
            None,
            activity,
            extractors=self.extractors,
        )

    def training_step(self) -> Iterator[Batch]:
        """Yield the first training images, with the activity of a training step on them.

        Of a training in stages it is a step of the last one.
        The step starts from the model's weights, which are put back afterwards.
        """
        context, model = self.context, self.model
        n = min(context.protocol.batch_size, len(context.train_images))
        images = to_unit_range(context.train_images[:n])
        labels = labels_for(model, context.train_labels).of(0, n)
        batches = batch_count(len(context.train_images), n, context.protocol.drop_last)
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        with preserved_randomness(), recording(model, n) as activity:
            seed_everything(context.seed)
            with torch.enable_grad():
                step = Step(0.0, batches, stage=begin_last_stage(model, context.train_images))
                model.train().training_step(images, step, **labels)
        model.load_state_dict(weights)
        model.eval().zero_grad()
        yield Batch("train", images, None, activity)

    def noisy_reconstructions(self) -> Iterator[Batch]:
        """Yield ``noise_images`` test images, reconstructed under each noise and level.

        The batches have the size :func:`noise_batch_size`, so that the draws do not depend on the
        protocol's ``evaluation_batch_size``. Noise depends on the seed, its kind and the image,
        never on the model: every model gets the same noise on its input, and all latents of the
        same shape get the same noise. The model's own draws are the same with and without noise.
        Noise on the input is compared with ``reconstruct`` on the images without noise, which are
        also yielded as the kind ``none``; noise on the latent is compared with ``decode`` on the
        latent without noise.
        """
        protocol = self.context.protocol
        images, known = _drawn(
            self.context.test_images, self.context.test_labels, protocol.noise_images
        )
        labels = labels_for(self.model, known)
        size = noise_batch_size(protocol.image_size)
        first = 0
        for originals in self._batches(images, "under noise", size):
            shown = labels.of(first, len(originals))
            yield from self._under_input_noise(originals, first, shown)
            if {"encode", "decode"} <= self.model.capabilities:
                yield from self._under_latent_noise(originals, first, shown)
            first += len(originals)

    def partial_decodings(self) -> Iterator[Batch]:
        """Yield reconstructions and samples, decoded from the first t = 1..T time steps only.

        At most ``time_step_images`` of each. The latents of the samples belong to the first images
        of :meth:`generated`, if the model's draws do not depend on which of its methods are called.
        The latents of the reconstructions belong to :meth:`reconstructions` if, besides, all test
        images are used.
        """
        generator = self._seeded()
        limit = self.context.protocol.time_step_images
        test_images, known = _drawn(self.context.test_images, self.context.test_labels, limit)
        labels, start = labels_for(self.model, known), 0
        for originals in self._batches(test_images, "by time steps"):
            shown = labels.of(start, len(originals))
            start += len(originals)
            latents = self._encoded(originals, generator, shown)
            for t, images in self._prefixes(latents, originals.shape, shown):
                yield Batch("test", images, originals, {}, time_step=t, extractors=self.extractors)
        if "sample_latents" not in self.model.capabilities:
            return
        generator = self._seeded()
        total = min(limit, self.context.protocol.generated_images)
        labels = self._drawn_labels(total)
        for start, n in self._parts(total, "by time steps"):
            latents, shape = self._prior(n, generator), (n, *self.context.test_images.shape[1:])
            for t, images in self._prefixes(latents, shape, labels.of(start, n)):
                yield Batch("generated", images, None, {}, time_step=t, extractors=self.extractors)

    def latents(self) -> Iterator[LatentBatch]:
        """Yield posterior latents of training and test images, and as many prior latents.

        At most ``latent_images`` of each. The three are drawn independently: with the same draws,
        posterior and prior would be paired and seem closer than they are.
        """
        limit = self.context.protocol.latent_images
        context = self.context
        train = _drawn(context.train_images, context.train_labels, limit)
        test = _drawn(context.test_images, context.test_labels, limit)
        yield from self._posterior("train", *train)
        yield from self._posterior("test", *test)
        if "sample_latents" in self.model.capabilities:
            generator = self._seeded("latents", "prior")
            for _, n in self._parts(len(test[0]), "latents of the prior"):
                yield LatentBatch("prior", self._prior(n, generator), None)

    def sampling_time(self) -> SamplingTime:
        """Time calls of ``sample``, after one call to warm up, or until a graph is captured."""
        generator = self._seeded()
        n = min(self.context.protocol.evaluation_batch_size, self.context.protocol.generated_images)
        calls, labels = self._model_calls, self._drawn_labels(n).of(0, n)
        sample = partial(calls.sample, n, generator, **labels)
        sample()
        graph = calls.graph("sample", n)
        while not graph.ready:
            sample()
        before = graph.replayed
        seconds = [self._seconds(sample) for _ in range(TIMED_BATCHES)]
        return SamplingTime(n, tuple(seconds), graph.replayed - before, graph.eager)

    @property
    def _model_calls(self) -> ModelCalls:
        return self.calls or ModelCalls(self.model)

    def _seconds(self, call: Callable[[], object]) -> float:
        started = time.perf_counter()
        call()
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return time.perf_counter() - started

    @contextmanager
    def _recording(self, n: int) -> Iterator[tuple[_Calls, Mapping[str, LayerActivity]]]:
        """Yield what to call for n images, and the activity of layers that the call records.

        Hooks run on the host, so what is recorded is not taken from a graph.
        """
        if not self.recorded:
            yield self._model_calls, NotRecorded()
            return
        with recording(self.model, n) as activity:
            yield self.model, activity

    def test_batches(self) -> Iterator[Tensor]:
        """Yield every test image once, ``(N, C, H, W)`` in [-1, 1], flipped by the protocol."""
        flips = None
        if self.context.protocol.horizontal_flip == "train_and_test":
            flips = torch.Generator().manual_seed(self.context.seed)
        return evaluation_batches(
            self.context.test_images, self.context.protocol.evaluation_batch_size, flips
        )

    def _seeded(self, *stream: object) -> torch.Generator:
        """Seed the global generators; return a generator of the seed, or of a named stream."""
        seed = derived_seed(self.context.seed, *stream) if stream else self.context.seed
        seed_everything(seed)
        return torch.Generator(self.model.device).manual_seed(seed)

    def _batches(self, images: Tensor, stage: str, size: int | None = None) -> Iterator[Tensor]:
        done = 0
        size = size or self.context.protocol.evaluation_batch_size
        for batch in evaluation_batches(images, size):
            yield batch
            done += len(batch)
            self.context.reporter.evaluated(stage, done, len(images))

    def _drawn_labels(self, n: int) -> ClassLabels:
        return drawn_labels(self.model, self.context.class_counts, n, self.context.seed)

    def _parts(self, total: int, stage: str) -> Iterator[tuple[int, int]]:
        """Yield the first place and the number of images of each batch."""
        size = self.context.protocol.evaluation_batch_size
        for start in range(0, total, size):
            n = min(size, total - start)
            yield start, n
            self.context.reporter.evaluated(stage, start + n, total)

    def _posterior(
        self, split: Literal["train", "test"], images: Tensor, labels: Tensor | None
    ) -> Iterator[LatentBatch]:
        generator = self._seeded("latents", split)
        shown, start = labels_for(self.model, labels), 0
        for batch in self._batches(images, f"latents of {split} images"):
            known = None if labels is None else labels[start : start + len(batch)]
            latents = self._encoded(batch, generator, shown.of(start, len(batch)))
            start += len(batch)
            yield LatentBatch(split, latents, known)

    def _encoded(
        self, images: Tensor, generator: torch.Generator, labels: Mapping[str, Tensor]
    ) -> Tensor:
        latents = self.model.encode(images, generator, **labels)
        check_latents(latents, len(images), self.model.spiking_latents, "encode")
        return latents

    def _prior(self, n: int, generator: torch.Generator) -> Tensor:
        latents = self.model.sample_latents(n, generator)
        check_latents(latents, n, self.model.spiking_latents, "sample_latents")
        return latents

    def _decoded(
        self, latents: Tensor, shape: tuple[int, ...], labels: Mapping[str, Tensor]
    ) -> Tensor:
        images = self.model.decode(latents, **labels)
        check_images(images, shape, "decode")
        return _in_plain_layout(images)

    def _prefixes(
        self, latents: Tensor, shape: tuple[int, ...], labels: Mapping[str, Tensor]
    ) -> Iterator[tuple[int, Tensor]]:
        for t, images in enumerate(self.model.decode_prefixes(latents, **labels), start=1):
            check_images(images, shape, "decode_prefixes")
            yield t, _in_plain_layout(images)

    def _under_input_noise(
        self, originals: Tensor, first: int, labels: Mapping[str, Tensor]
    ) -> Iterator[Batch]:
        def reconstructed(images: Tensor) -> Tensor:
            output = self.model.reconstruct(images, self._seeded("under noise", first), **labels)
            check_images(output, originals.shape, "reconstruct")
            return _in_plain_layout(output)

        clean = reconstructed(originals)
        yield self._noisy(clean, originals, clean, NO_NOISE, 0.0)
        for kind, noise in INPUT_NOISE.items():
            draws = NoiseStream(self.context.seed, kind, first)
            for level in self.context.protocol.noise_levels:
                images = reconstructed(noise(originals, level, draws))
                yield self._noisy(images, originals, clean, kind, level)

    def _under_latent_noise(
        self, originals: Tensor, first: int, labels: Mapping[str, Tensor]
    ) -> Iterator[Batch]:
        def decoded(latents: Tensor) -> Tensor:
            self._seeded("decoding under noise", first)
            return self._decoded(latents, originals.shape, labels)

        latents = self._encoded(originals, self._seeded("under noise", first), labels)
        clean = decoded(latents)
        for kind, level, noisy in self._noisy_latents(latents, first):
            yield self._noisy(decoded(noisy), originals, clean, kind, level)

    def _noisy_latents(
        self, latents: Tensor, first: int
    ) -> Iterator[tuple[str, float | None, Tensor]]:
        for kind, noise in LATENT_NOISE.items():
            draws = NoiseStream(self.context.seed, kind, first)
            for level in self.context.protocol.noise_levels:
                yield kind, level, noise(latents, level, draws)
        if latents.ndim == 3:
            draws = NoiseStream(self.context.seed, LATENT_SHUFFLE, first)
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


def noise_batch_size(image_size: int) -> int:
    """Return the number of images per batch in the pass under noise.

    250 images of up to 32x32 pixels, and fewer of larger images, which need more memory.

    >>> noise_batch_size(28), noise_batch_size(64)
    (250, 62)
    """
    return min(NOISE_BATCH, max(1, NOISE_BATCH_PIXELS // image_size**2))


def check_images(images: object, shape: tuple[int, ...], method: str) -> None:
    """Check the images ``(N, C, H, W)`` that a method of a model returned.

    Args:
        images: images to check.
        shape: expected shape.
        method: name of the method, for the message.

    Raises:
        TypeError: if they are not a float32 tensor.
        ValueError: if shape or range differ from the contract of a model.
    """
    if not isinstance(images, Tensor) or images.dtype != torch.float32:
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"{method} gave {kind}, expected a float32 tensor of images in [-1, 1]")
    if images.shape != shape:
        raise ValueError(
            f"{method} gave images of shape {tuple(images.shape)}, expected {tuple(shape)}"
        )
    lowest, highest = images.min().item(), images.max().item()
    if lowest < -1 - RANGE_TOLERANCE or highest > 1 + RANGE_TOLERANCE:
        raise ValueError(f"{method} gave values in {lowest:g}..{highest:g}, expected [-1, 1]")


def _in_plain_layout(images: Tensor) -> Tensor:
    """Return images ``(N, C, H, W)`` in the same layout for every model.

    An extractor's convolutions round by the layout of their input, which differs between backends,
    and the same images should have the same scores.
    """
    return images.clone(memory_format=torch.contiguous_format)


def _drawn(images: Tensor, labels: Tensor | None, limit: int) -> tuple[Tensor, Tensor | None]:
    """Draw at most ``limit`` images, in their order and with their labels, with a fixed seed."""
    if limit >= len(images):
        return images, labels
    drawn = torch.from_numpy(draw(len(images), limit))
    known = None if labels is None else labels[drawn.to(labels.device)]
    return images[drawn.to(images.device)], known


def check_latents(latents: object, n: int, spiking: bool, method: str) -> None:
    """Check the latents ``(n, D)``, or ``(T, n, D)`` if spiking, that a method returned.

    Args:
        latents: latents to check.
        n: number of images.
        spiking: True if they have to be spike trains.
        method: name of the method, for the message.

    Raises:
        TypeError: if they are not a tensor.
        ValueError: if shape or values differ from the contract of a model.
    """
    if not isinstance(latents, Tensor):
        raise TypeError(f"{method} gave {type(latents).__name__}, expected a tensor of latents")
    expected = f"(T, {n}, D)" if spiking else f"({n}, D)"
    if latents.ndim != (3 if spiking else 2) or latents.shape[-2] != n:
        raise ValueError(
            f"{method} gave latents of shape {tuple(latents.shape)}, expected {expected}"
        )
    if spiking and not ((latents == 0) | (latents == 1)).all():
        raise ValueError(f"{method} gave latents that are not spikes, expected values in {{0, 1}}")
