"""How fast a model trains, reconstructs and samples, in how much memory, and in which layers."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from bench.evaluation.passes import check_images
from bench.model import GenerativeModel, Step
from bench.recording.layer_timing import Place, layer_seconds
from bench.system.devices import PeakMemory
from bench.system.random_state import seed_everything

Activity = Literal["training", "reconstruction", "sampling"]
ACTIVITIES: tuple[Activity, ...] = get_args(Activity)


@dataclass(frozen=True)
class Measured:
    """What one activity takes.

    Attributes:
        images: how many are dealt with in a call.
        seconds: of each timed call, after one to warm up.
        peak_memory: bytes, of all these calls; None where the system cannot tell.
        layers: seconds by place of each of as many further calls, slower for being looked into.
    """

    images: int
    seconds: tuple[float, ...]
    peak_memory: int | None
    layers: tuple[dict[Place, float], ...]


@dataclass(frozen=True)
class Profiler:
    """Measures the activities of one model, each call on the same batch.

    Attributes:
        model: on the images' device; training changes it.
        images: a batch ``(N, C, H, W)`` in [-1, 1]; as many are sampled.
        step: what is told to each training step.
        seed: of everything drawn.
        repeats: timed calls, from 1.
    """

    model: GenerativeModel
    images: Tensor
    step: Step
    seed: int
    repeats: int

    def measure(self, activity: Activity) -> Measured:
        """Time an activity's calls, then other calls layer by layer.

        Raises:
            ValueError: the model's images are not as its contract says.
        """
        training = activity == "training"
        self.model.train(training)
        seed_everything(self.seed)
        call = self._call(activity)
        with torch.set_grad_enabled(training):
            memory = PeakMemory(self.images.device)
            self._warm_up(activity, call)
            seconds = tuple(self._timed(call) for _ in range(self.repeats))
            peak = memory.bytes()
            layers = layer_seconds(self.model, call, self.repeats, self.images.device)
        return Measured(len(self.images), seconds, peak, layers)

    def lacks(self, activity: Activity) -> str | None:
        """Why the model cannot do an activity; None if it can."""
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
        if isinstance(made, Tensor):
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
