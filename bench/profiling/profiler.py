"""Measurement of a model's speed and memory in training, reconstruction and sampling."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from bench.evaluation.passes import check_images
from bench.model import GenerativeModel, Step
from bench.recording.layer_timing import Place, layer_seconds
from bench.system.devices import PeakMemoryMeter
from bench.system.random_state import seed_everything
from bench.training.losses import checked_losses

Activity = Literal["training", "reconstruction", "sampling"]
ACTIVITIES: tuple[Activity, ...] = get_args(Activity)


@dataclass(frozen=True)
class Measured:
    """Measurements of one activity.

    Attributes:
        images: number of images per call.
        seconds: duration of each timed call, without the warm-up call.
        peak_memory: largest memory during the warm-up and timed calls, in bytes; None if it
            cannot be measured.
        layers: seconds by place of each instrumented call; instrumented calls are slower than
            timed ones, and there are as many.
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
        step: position in the training, passed to each training step.
        seed: seed of all random draws.
        repeats: number of timed calls, at least 1.
    """

    model: GenerativeModel
    images: Tensor
    step: Step
    seed: int
    repeats: int

    def measure(self, activity: Activity) -> Measured:
        """Time calls of an activity, then instrumented calls for the times per layer.

        Raises:
            TypeError: if the model returns something other than losses or float32 images.
            ValueError: if the model returns images of another shape or range than it should.
        """
        training = activity == "training"
        self.model.train(training)
        seed_everything(self.seed)
        call = self._call(activity)
        with torch.set_grad_enabled(training):
            memory = PeakMemoryMeter(self.images.device)
            self._warm_up(activity, call)
            seconds = tuple(self._timed(call) for _ in range(self.repeats))
            peak = memory.bytes()
            layers = layer_seconds(self.model, call, self.repeats, self.images.device)
        return Measured(len(self.images), seconds, peak, layers)

    def lacks(self, activity: Activity) -> str | None:
        """Return the reason why the model cannot do an activity; None if it can."""
        needed = {"training": None, "reconstruction": "reconstruct", "sampling": "sample"}[activity]
        if needed is None or needed in self.model.capabilities:
            return None
        return f"not for {type(self.model).__name__}: it cannot {needed}"

    def _call(self, activity: Activity) -> Callable[[], object]:
        model, images = self.model, self.images
        generator = torch.Generator(images.device).manual_seed(self.seed)
        if activity == "training":
            return lambda: model.training_step(images, self.step)
        if activity == "reconstruction":
            return lambda: model.reconstruct(images, generator)
        return lambda: model.sample(len(images), generator)

    def _warm_up(self, activity: Activity, call: Callable[[], object]) -> None:
        made = call()
        if activity == "training":
            checked_losses(self.model, made)
        else:
            check_images(made, self.images.shape, activity)
        self._synchronise()

    def _timed(self, call: Callable[[], object]) -> float:
        started = time.perf_counter()
        call()
        self._synchronise()
        return time.perf_counter() - started

    def _synchronise(self) -> None:
        if self.images.device.type == "cuda":
            torch.cuda.synchronize(self.images.device)
