"""A trained model to observations: the passes that show it to the metrics."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.batches import batch_count, evaluation_batches, seed_everything
from bench.errors import one_line
from bench.metrics.base import Batch, Facts, Metric, Need, Observation, SamplingTime
from bench.model import GenerativeModel, Step
from bench.progress import Reporter
from bench.protocol import Protocol
from bench.spikes import LayerActivity, recording
from bench.training import Score, TrainingRecord

RANGE_TOLERANCE = 1e-3
TIMED_BATCHES = 3

Scores = Callable[[GenerativeModel], dict[str, Score]]


@dataclass(frozen=True)
class Evaluator:
    """Evaluates models of one cell.

    Attributes:
        images: uint8 test images ``(N, C, H, W)``, on the model's device.
        protocol: resolved for the model and dataset.
        seed: of everything drawn; each pass starts from it, so passes do not affect each other.
        reporter: is told of the passes.
    """

    images: Tensor
    protocol: Protocol
    seed: int
    reporter: Reporter

    def evaluate(
        self, model: GenerativeModel, metrics: Sequence[Metric], training: TrainingRecord
    ) -> dict[str, list[Observation]]:
        """Observations by metric. A metric that fails, or cannot apply, says so in its own."""
        missing = {metric.name: _missing(metric, model) for metric in metrics}
        shown = _Audience([metric for metric in metrics if not missing[metric.name]])
        model.eval()
        with torch.no_grad():
            if shown.wants("reconstructions"):
                shown.show(self._reconstructions(model))
            if shown.wants("generated"):
                shown.show(self._generated(model))
            sampling = self._sampling_time(model) if shown.wants("sampling_time") else None
        facts = Facts(*_size(model), training, sampling)
        return {
            metric.name: (
                [Observation(None, status="not_applicable", reason=missing[metric.name])]
                if missing[metric.name]
                else shown.compute(metric, facts)
            )
            for metric in metrics
        }

    def test_loss(self, model: GenerativeModel) -> float:
        """The model's objective over every test image once, batches weighed by their size.

        Raises:
            ValueError: the model declares no ``test_loss``.
        """
        if "test_loss" not in model.capabilities:
            raise ValueError(
                f"epoch_selection = 'best_test_loss' needs a model with the capability "
                f"test_loss, which {type(model).__name__} lacks"
            )
        generator = self._seeded(model)
        step = Step(1.0, batch_count(len(self.images), self.protocol.evaluation_batch_size))
        total = 0.0
        with torch.no_grad():
            for images in self._test_batches():
                total += model.test_loss(images, step, generator).item() * len(images)
        return total / len(self.images)

    def _test_batches(self) -> Iterator[Tensor]:
        flips = None
        if self.protocol.horizontal_flip == "train_and_test":
            flips = torch.Generator().manual_seed(self.seed)
        return evaluation_batches(self.images, self.protocol.evaluation_batch_size, flips)

    def _seeded(self, model: GenerativeModel) -> torch.Generator:
        seed_everything(self.seed)
        return torch.Generator(model.device).manual_seed(self.seed)

    def _reconstructions(self, model: GenerativeModel) -> Iterator[Batch]:
        generator = self._seeded(model)
        done = 0
        for originals in self._test_batches():
            with _recorded(model) as activity:
                images = model.reconstruct(originals, generator)
            _check_images(images, originals.shape, "reconstruct")
            done += len(images)
            self.reporter.evaluated("reconstructing", done, len(self.images))
            yield Batch("test", images, originals, activity)

    def _generated(self, model: GenerativeModel) -> Iterator[Batch]:
        generator = self._seeded(model)
        total = self.protocol.generated_images
        for start in range(0, total, self.protocol.evaluation_batch_size):
            n = min(self.protocol.evaluation_batch_size, total - start)
            with _recorded(model) as activity:
                images = model.sample(n, generator)
            _check_images(images, (n, *self.images.shape[1:]), "sample")
            self.reporter.evaluated("sampling", start + n, total)
            yield Batch("generated", images, None, activity)

    def _sampling_time(self, model: GenerativeModel) -> SamplingTime:
        generator = self._seeded(model)
        n = min(self.protocol.evaluation_batch_size, self.protocol.generated_images)
        seconds = []
        for _ in range(1 + TIMED_BATCHES):
            started = time.perf_counter()
            model.sample(n, generator)
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            seconds.append(time.perf_counter() - started)
        return SamplingTime(n, tuple(seconds[1:]))


class _Audience:
    """The metrics that a model is shown to; one that fails leaves the others alone."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = metrics
        self._failed: dict[str, str] = {}

    def wants(self, need: Need) -> bool:
        return any(need in metric.needs for metric in self.metrics)

    def show(self, batches: Iterator[Batch]) -> None:
        for batch in batches:
            need: Need = "reconstructions" if batch.split == "test" else "generated"
            for metric in self.metrics:
                if need in metric.needs and metric.name not in self._failed:
                    with self._guarded(metric):
                        metric.update(batch)

    def compute(self, metric: Metric, facts: Facts) -> list[Observation]:
        observations: list[Observation] = []
        if metric.name not in self._failed:
            with self._guarded(metric):
                observations = [_finite(found) for found in metric.compute(facts)]
        if metric.name in self._failed:
            return [Observation(None, status="failed", reason=self._failed[metric.name])]
        return observations

    @contextmanager
    def _guarded(self, metric: Metric) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._failed[metric.name] = one_line(error)


def selection_scores(evaluator: Evaluator, metric_classes: Iterable[type[Metric]]) -> Scores:
    """How epochs are scored under the protocol's ``epoch_selection``.

    ``last``: not at all. ``best_test_loss``: by the objective on the test set. ``best_per_metric``:
    by each metric that selects epochs, on its own.
    """
    match evaluator.protocol.epoch_selection:
        case "last":
            return lambda model: {}
        case "best_test_loss":
            return lambda model: {"best_test_loss": Score(evaluator.test_loss(model), False)}
        case "best_per_metric":
            selecting = [metric for metric in metric_classes if metric.selects_epochs]
            return lambda model: _metric_scores(evaluator, selecting, model)


def _metric_scores(
    evaluator: Evaluator, metric_classes: Iterable[type[Metric]], model: GenerativeModel
) -> dict[str, Score]:
    metrics = [metric(evaluator.protocol) for metric in metric_classes]
    observations = evaluator.evaluate(model, metrics, TrainingRecord((), {}, None))
    scores = {}
    for metric in metrics:
        value = observations[metric.name][0].value
        if value is not None:
            scores[metric.name] = Score(value, bool(metric.higher_is_better))
    return scores


def _check_images(images: Tensor, shape: tuple[int, ...], method: str) -> None:
    """Raise ValueError unless a model's images are as its contract says."""
    if images.shape != shape:
        raise ValueError(
            f"{method} gave images of shape {tuple(images.shape)}, expected {tuple(shape)}"
        )
    lowest, highest = images.min().item(), images.max().item()
    if lowest < -1 - RANGE_TOLERANCE or highest > 1 + RANGE_TOLERANCE:
        raise ValueError(f"{method} gave values in {lowest:g}..{highest:g}, expected [-1, 1]")


def _finite(observation: Observation) -> Observation:
    """The observation, failed if its value is NaN or infinite."""
    value = observation.value
    if value is None or math.isfinite(value):
        return observation
    return replace(observation, value=None, status="failed", reason=f"the value is {value}")


def _missing(metric: Metric, model: GenerativeModel) -> str | None:
    """What the metric needs and the model cannot give, in words; None if nothing."""
    able = {
        "reconstructions": "reconstruct" in model.capabilities,
        "generated": "sample" in model.capabilities,
        "sampling_time": "sample" in model.capabilities,
        "spikes": bool(model.spiking_layers()),
    }
    words = {
        "reconstructions": "it cannot reconstruct",
        "generated": "it cannot sample",
        "sampling_time": "it cannot sample",
        "spikes": "it has no spiking layers",
    }
    lacking = [words[need] for need in sorted(metric.needs) if not able[need]]
    return f"not for {type(model).__name__}: {lacking[0]}" if lacking else None


@contextmanager
def _recorded(model: GenerativeModel) -> Iterator[dict[str, LayerActivity]]:
    with recording(model.spiking_layers(), model.activation_layers()) as activity:
        yield activity


def _size(model: GenerativeModel) -> tuple[int, int]:
    parameters = list(model.parameters())
    tensors = [*parameters, *model.buffers()]
    return (
        sum(parameter.numel() for parameter in parameters),
        sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    )
