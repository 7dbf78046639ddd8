"""Measurement of a model's speed and memory: training, reconstruction, sampling and scoring."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from bench.datasets.batches import to_pixels
from bench.evaluation.class_labels import ClassLabels
from bench.evaluation.model_calls import ModelCalls
from bench.evaluation.passes import check_images
from bench.metrics.extractors.autoencoder_network import CHANNELS, AutoencoderNetwork
from bench.model import Capability, GenerativeModel, Step, begin_last_stage
from bench.recording.layer_timing import Place, layer_seconds
from bench.system.devices import PeakMemoryMeter
from bench.system.random_state import seed_everything
from bench.training.losses import checked_losses
from bench.training.steps import TrainingSteps

Activity = Literal["training", "reconstruction", "sampling", "scoring"]
ACTIVITIES: tuple[Activity, ...] = get_args(Activity)
FEATURES = 64
_NEEDED: Mapping[Activity, tuple[Capability, ...]] = {
    "training": (),
    "reconstruction": ("reconstruct",),
    "sampling": ("sample",),
    "scoring": ("sample", "reconstruct", "test_loss"),
}


@dataclass(frozen=True)
class Measured:
    """Measurements of one activity.

    Attributes:
        images: number of images per call.
        seconds: duration of each timed call, without the warm-up call.
        peak_memory: largest memory during the warm-up and timed calls, in bytes; None if it
            cannot be measured.
        layers: seconds by place of each instrumented call; instrumented calls are slower than
            timed ones, and there are as many. None for scoring.
    """

    images: int
    seconds: tuple[float, ...]
    peak_memory: int | None
    layers: tuple[dict[Place, float], ...]


@dataclass(frozen=True)
class Profiler:
    """Profiler of one model, with the same batch in each call.

    Attributes:
        model: model on the images' device; measuring the training changes its weights.
        images: batch ``(N, C, H, W)`` in [-1, 1]; a sampling call draws N images.
        batches: number of batches of an epoch, passed to each training step.
        seed: seed of all random draws.
        repeats: number of timed calls, at least 1.
        labels: classes of the images, int64 ``(N,)``, also of those that are drawn; None for a
            model that takes none.
    """

    model: GenerativeModel
    images: Tensor
    batches: int
    seed: int
    repeats: int
    labels: Tensor | None = None

    def measure(self, activity: Activity) -> Measured:
        """Time calls of an activity, then instrumented calls for the times per layer.

        Of a training in stages, steps of the last stage are timed.

        On a GPU the timed calls come from a CUDA graph if the model can be captured; instrumented
        calls never do.

        Raises:
            TypeError: if the model returns something other than losses or float32 images.
            ValueError: if the model returns images of another shape or range than it should.
        """
        training = activity == "training"
        self.model.train(training)
        seed_everything(self.seed)
        if training:
            begin_last_stage(self.model, to_pixels(self.images))
        with torch.set_grad_enabled(training):
            memory = PeakMemoryMeter(self.images.device)
            call = self._warmed_up(activity)
            seconds = tuple(self._timed(call) for _ in range(self.repeats))
            peak = memory.bytes()
            layers: tuple[dict[Place, float], ...] = ()
            if activity != "scoring":
                eager = self._eager(activity)
                layers = layer_seconds(self.model, eager, self.repeats, self.images.device)
        return Measured(len(self.images), seconds, peak, layers)

    def lacks(self, activity: Activity) -> str | None:
        """Return the reason why the model cannot do an activity; None if it can."""
        lacking = [name for name in _NEEDED[activity] if name not in self.model.capabilities]
        if lacking:
            return f"not for {type(self.model).__name__}: it lacks {lacking[0]}"
        return None

    def _warmed_up(self, activity: Activity) -> Callable[[], object]:
        """Return a call of the activity that is as fast as all that follow; check what it gives."""
        made, call, ready = self._graphed(activity)
        if activity == "training":
            checked_losses(self.model, made)
        else:
            check_images(made, self.images.shape, _NEEDED[activity][0])
        while not ready():
            call()
        self._synchronise()
        return call

    def _graphed(
        self, activity: Activity
    ) -> tuple[object, Callable[[], object], Callable[[], bool]]:
        """Return the result of a first call, the call, and whether the next one is as fast as any.

        On a GPU the calls come from a CUDA graph once it is captured.
        """
        model, images, n, generator = self.model, self.images, self._n, self._generator()
        labels = self._labels
        steps, calls = TrainingSteps(model, n, self.batches), ModelCalls(model)
        steps.begin_stage(model.last_stage)
        features = _features(images)

        def score() -> Tensor:
            calls.test_loss(images, self.batches, generator, **labels)
            calls.reconstruct(images, generator, **labels)
            samples = calls.sample(n, generator, **labels)
            features(samples)
            return samples

        by_activity: dict[Activity, Callable[[], object]] = {
            "training": lambda: steps.take(images, 0.0, self.labels),
            "reconstruction": lambda: calls.reconstruct(images, generator, **labels),
            "sampling": lambda: calls.sample(n, generator, **labels),
            "scoring": score,
        }
        call = by_activity[activity]
        made = call()
        graphs = [calls.graph(method, n) for method in _NEEDED[activity]]
        return made, call, lambda: steps.ready if not graphs else all(g.ready for g in graphs)

    def _eager(self, activity: Activity) -> Callable[[], object]:
        """Return a call of the activity that runs layer by layer."""
        model, images, generator = self.model, self.images, self._generator()
        labels = self._labels
        if activity == "training":
            step = Step(0.0, self.batches, stage=model.last_stage)
            return lambda: model.training_step(images, step, **labels)
        if activity == "reconstruction":
            return lambda: model.reconstruct(images, generator, **labels)
        return lambda: model.sample(self._n, generator, **labels)

    @property
    def _labels(self) -> dict[str, Tensor]:
        return ClassLabels(self.labels).of(0, self._n)

    @property
    def _n(self) -> int:
        return len(self.images)

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.images.device).manual_seed(self.seed)

    def _timed(self, call: Callable[[], object]) -> float:
        started = time.perf_counter()
        call()
        self._synchronise()
        return time.perf_counter() - started

    def _synchronise(self) -> None:
        if self.images.device.type == "cuda":
            torch.cuda.synchronize(self.images.device)


def _features(images: Tensor) -> Callable[[Tensor], object]:
    """Return FAD's features of images ``(N, C, H, W)``, untrained: as fast as trained ones."""
    if images.shape[-1] not in CHANNELS:
        return lambda samples: None
    network = AutoencoderNetwork(images.shape[1], images.shape[-1], FEATURES)
    return network.to(images.device).eval().encode
