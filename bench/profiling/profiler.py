"""Measurement of a model's speed and memory in training, reconstruction and sampling."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from bench.evaluation.model_calls import ModelCalls
from bench.evaluation.passes import check_images
from bench.model import GenerativeModel, Step
from bench.recording.layer_timing import Place, layer_seconds
from bench.system.devices import PeakMemoryMeter
from bench.system.random_state import seed_everything
from bench.training.losses import checked_losses
from bench.training.steps import TrainingSteps

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
        batches: number of batches of an epoch, passed to each training step.
        seed: seed of all random draws.
        repeats: number of timed calls, at least 1.
    """

    model: GenerativeModel
    images: Tensor
    batches: int
    seed: int
    repeats: int

    def measure(self, activity: Activity) -> Measured:
        """Time calls of an activity, then instrumented calls for the times per layer.

        On a GPU the timed calls come from a CUDA graph if the model can be captured; instrumented
        calls never do.

        Raises:
            TypeError: if the model returns something other than losses or float32 images.
            ValueError: if the model returns images of another shape or range than it should.
        """
        training = activity == "training"
        self.model.train(training)
        seed_everything(self.seed)
        with torch.set_grad_enabled(training):
            memory = PeakMemoryMeter(self.images.device)
            call = self._warmed_up(activity)
            seconds = tuple(self._timed(call) for _ in range(self.repeats))
            peak = memory.bytes()
            eager = self._eager(activity)
            layers = layer_seconds(self.model, eager, self.repeats, self.images.device)
        return Measured(len(self.images), seconds, peak, layers)

    def lacks(self, activity: Activity) -> str | None:
        """Return the reason why the model cannot do an activity; None if it can."""
        needed = {"training": None, "reconstruction": "reconstruct", "sampling": "sample"}[activity]
        if needed is None or needed in self.model.capabilities:
            return None
        return f"not for {type(self.model).__name__}: it cannot {needed}"

    def _warmed_up(self, activity: Activity) -> Callable[[], object]:
        """Return a call of the activity that is as fast as all that follow; check what it gives."""
        steps, calls = TrainingSteps(self.model, self._n, self.batches), ModelCalls(self.model)
        generator = self._generator()
        match activity:
            case "training":
                checked_losses(self.model, steps.take(self.images, 0.0))
                while not steps.ready:
                    steps.take(self.images, 0.0)
                self._synchronise()
                return lambda: steps.take(self.images, 0.0)
            case "reconstruction":
                call, method = lambda: calls.reconstruct(self.images, generator), "reconstruct"
            case "sampling":
                call, method = lambda: calls.sample(self._n, generator), "sample"
        check_images(call(), self.images.shape, activity)
        while not calls.graph(method, self._n).ready:
            call()
        self._synchronise()
        return call

    def _eager(self, activity: Activity) -> Callable[[], object]:
        """Return a call of the activity that runs layer by layer."""
        model, images, generator = self.model, self.images, self._generator()
        calls: dict[Activity, Callable[[], object]] = {
            "training": lambda: model.training_step(images, Step(0.0, self.batches)),
            "reconstruction": lambda: model.reconstruct(images, generator),
            "sampling": lambda: model.sample(self._n, generator),
        }
        return calls[activity]

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
