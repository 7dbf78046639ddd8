"""A trained model to observations: the passes that show it to the metrics."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bench.datasets.batches import batch_count
from bench.errors import SkippedError, one_line
from bench.evaluation.passes import Passes
from bench.metrics.extractors.extractor import Extractors
from bench.metrics.feature_pairs import GeneratedFeatures
from bench.metrics.metric import Batch, LatentBatch, Metric, ModelFacts, Need, Observation, Status
from bench.model import GenerativeModel, Step
from bench.protocol import Protocol
from bench.recording.training_record import TrainingRecord
from bench.system.progress import WorkReporter
from bench.system.random_state import seed_everything
from bench.training.loop import BEST_TEST_LOSS, Score

Scores = Callable[[GenerativeModel], dict[str, Score]]
_Lacking = Mapping[Need, str | None]


@dataclass(frozen=True)
class Selections:
    """Values of the selecting metrics at each epoch that was selected.

    Attributes:
        values: value by metric and by epoch selection.
        higher_is_better: direction of improvement, by metric.
    """

    values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluator:
    """Evaluates the models of one cell.

    Attributes:
        train_images: training images, uint8 ``(N, C, H, W)``, on the model's device.
        images: test images, uint8 ``(N, C, H, W)``, on the model's device.
        train_labels: labels of the training images, int64 ``(N,)``; None where unknown.
        labels: labels of the test images, int64 ``(N,)``; None where unknown.
        protocol: protocol resolved for the model and dataset.
        seed: seed of every random draw; each pass starts from it, so that no pass affects another.
        extractors: feature extractors for the metrics.
        reporter: receiver of the progress.
    """

    train_images: Tensor
    images: Tensor
    train_labels: Tensor | None
    labels: Tensor | None
    protocol: Protocol
    seed: int
    extractors: Extractors
    reporter: WorkReporter

    def evaluate(
        self,
        model: GenerativeModel,
        metrics: Sequence[Metric],
        training: TrainingRecord,
        selections: Selections | None = None,
    ) -> dict[str, list[Observation]]:
        """Return the observations by metric; a metric that fails or cannot apply says why.

        Args:
            model: trained model, on its device.
            metrics: metrics to compute, freshly built.
            training: record of the model's training.
            selections: values of the selecting metrics; none if omitted.
        """
        lacking = _lacking(model)
        missing = {
            metric.name: metric.inapplicable() or _missing(metric, model, lacking)
            for metric in metrics
        }
        able = [metric for metric in metrics if not missing[metric.name]]
        shown = _Audience(able, lacking, GeneratedFeatures(self.extractors))
        shown.check_extractors(self.extractors)
        model.eval()
        passes = self._passes(model)
        with torch.no_grad():
            shown.show("reconstructions", passes.reconstructions)
            shown.show_generated(passes.generated)
            shown.show("noisy_reconstructions", passes.noisy_reconstructions)
            shown.show("partial_decodings", passes.partial_decodings)
            shown.show_latents(passes.latents)
            sampling = passes.sampling_time() if shown.wants("sampling_time") else None
            found = selections or Selections()
            facts = ModelFacts(
                *_size(model),
                training,
                sampling,
                self.extractors,
                shown.features,
                found.values,
                found.higher_is_better,
            )
            return {
                metric.name: (
                    [Observation(None, status="not_applicable", reason=missing[metric.name])]
                    if missing[metric.name]
                    else shown.compute(metric, facts)
                )
                for metric in metrics
            }

    def test_loss(self, model: GenerativeModel) -> float:
        """Return the objective over all test images, batches weighted by their size.

        Raises:
            ValueError: the model does not declare ``test_loss``.
        """
        if not _has_test_loss(model):
            raise ValueError(
                f"epoch_selection = 'best_test_loss' needs a model with the capability "
                f"test_loss, which {type(model).__name__} lacks"
            )
        seed_everything(self.seed)
        generator = torch.Generator(model.device).manual_seed(self.seed)
        step = Step(1.0, batch_count(len(self.images), self.protocol.evaluation_batch_size))
        total = 0.0
        with torch.no_grad():
            for images in self._passes(model).test_batches():
                total += model.test_loss(images, step, generator).item() * len(images)
        return total / len(self.images)

    def _passes(self, model: GenerativeModel) -> Passes:
        return Passes(
            model,
            self.train_images,
            self.images,
            self.train_labels,
            self.labels,
            self.protocol,
            self.seed,
            self.extractors,
            self.reporter,
        )


class _Audience:
    """The metrics that a model is shown to; one that fails leaves the others alone."""

    def __init__(
        self, metrics: Sequence[Metric], lacking: _Lacking, features: GeneratedFeatures
    ) -> None:
        self.metrics = metrics
        self.lacking = lacking
        self.features = features
        self._ended: dict[str, Observation] = {}

    def wants(self, need: Need) -> bool:
        return not self.lacking[need] and any(_uses(metric, need) for metric in self._left())

    def check_extractors(self, extractors: Extractors) -> None:
        """End the metrics whose extractors are unavailable."""
        for metric in self.metrics:
            with self._guarded(metric):
                for name in metric.extractors:
                    extractors.get(name)

    def show(self, need: Need, run: Callable[[], Iterator[Batch]]) -> None:
        """Run a pass, if any metric needs it."""
        if self.wants(need):
            for batch in run():
                self._show(need, batch)

    def show_generated(self, run: Callable[[], Iterator[Batch]]) -> None:
        """Run the pass of generated images, if any metric needs them or their features."""
        if self.wants("generated") or self.wants("features"):
            extracting = [metric for metric in self._left() if "features" in metric.needs]
            names = {name for metric in extracting for name in metric.extractors}
            for batch in run():
                for name in sorted(names):
                    self.features.add(name, batch.images)
                self._show("generated", batch)

    def show_latents(self, run: Callable[[], Iterator[LatentBatch]]) -> None:
        """Run the pass over latents, if any metric needs it."""
        if self.wants("latents"):
            for batch in run():
                for metric in self._left():
                    if "latents" in metric.needs:
                        with self._guarded(metric):
                            metric.update_latents(batch)

    def compute(self, metric: Metric, facts: ModelFacts) -> list[Observation]:
        observations: list[Observation] = []
        if metric.name not in self._ended:
            with self._guarded(metric):
                observations = [_finite(found) for found in metric.compute(facts)]
        if metric.name in self._ended:
            return [self._ended[metric.name]]
        return observations

    def _show(self, need: Need, batch: Batch) -> None:
        for metric in self._left():
            if _uses(metric, need):
                with self._guarded(metric):
                    metric.update(batch)

    def _left(self) -> list[Metric]:
        return [metric for metric in self.metrics if metric.name not in self._ended]

    @contextmanager
    def _guarded(self, metric: Metric) -> Iterator[None]:
        try:
            yield
        except SkippedError as error:
            self._end(metric, "skipped", str(error))
        except Exception as error:
            self._end(metric, "failed", one_line(error))

    def _end(self, metric: Metric, status: Status, reason: str) -> None:
        self._ended[metric.name] = Observation(None, status=status, reason=reason)


def selection_scores(evaluator: Evaluator, metric_classes: Iterable[type[Metric]]) -> Scores:
    """Return the function that scores epochs under the protocol's ``epoch_selection``.

    ``last`` scores none. ``best_test_loss`` scores by the objective on the test set.
    ``best_per_metric`` scores by each metric that selects epochs, and by the objective too if the
    model has one, so that the three selections can be compared.
    """
    match evaluator.protocol.epoch_selection:
        case "last":
            return lambda model: {}
        case "best_test_loss":
            return lambda model: _test_loss_score(evaluator, model)
        case "best_per_metric":
            selecting = [metric for metric in metric_classes if metric.selects_epochs]
            return lambda model: {
                **(_test_loss_score(evaluator, model) if _has_test_loss(model) else {}),
                **metric_scores(evaluator, selecting, model),
            }


def metric_scores(
    evaluator: Evaluator, metric_classes: Iterable[type[Metric]], model: GenerativeModel
) -> dict[str, Score]:
    """Return the first value of each metric that has one, by name.

    Args:
        evaluator: evaluator of the cell.
        metric_classes: classes of the metrics.
        model: model to score.
    """
    metrics = [metric(evaluator.protocol) for metric in metric_classes]
    observations = evaluator.evaluate(model, metrics, TrainingRecord((), {}, None))
    scores = {}
    for metric in metrics:
        value = observations[metric.name][0].value
        if value is not None:
            scores[metric.name] = Score(value, bool(metric.higher_is_better))
    return scores


def _test_loss_score(evaluator: Evaluator, model: GenerativeModel) -> dict[str, Score]:
    return {BEST_TEST_LOSS: Score(evaluator.test_loss(model), False)}


def _has_test_loss(model: GenerativeModel) -> bool:
    return "test_loss" in model.capabilities


def _finite(observation: Observation) -> Observation:
    """Return the observation, failed if its value is NaN or infinite."""
    value = observation.value
    if value is None or math.isfinite(value):
        return observation
    return replace(
        observation,
        value=None,
        ci_low=None,
        ci_high=None,
        status="failed",
        reason=f"the value is {value}",
    )


def _uses(metric: Metric, need: Need) -> bool:
    return need in metric.needs or need in metric.needs_any


def _lacking(model: GenerativeModel) -> _Lacking:
    """Return by need why the model lacks it; None where it does not."""
    able = model.capabilities
    no_samples = None if "sample" in able else "it cannot sample"
    no_reconstructions = None if "reconstruct" in able else "it cannot reconstruct"
    return {
        "reconstructions": no_reconstructions,
        "noisy_reconstructions": no_reconstructions,
        "generated": no_samples,
        "features": no_samples,
        "sampling_time": no_samples,
        "latents": None if "encode" in able else "it cannot encode",
        "partial_decodings": _no_partial_decodings(model),
        "selections": None,
        "spikes": None if model.spiking_layers() else "it has no spiking layers",
    }


def _missing(metric: Metric, model: GenerativeModel, lacking: _Lacking) -> str | None:
    """Return what the metric needs and the model lacks; None if nothing."""
    reasons = [reason for need in sorted(metric.needs) if (reason := lacking[need])]
    choice = [lacking[need] for need in sorted(metric.needs_any)]
    if choice and all(choice):
        reasons.append(" and ".join(reason for reason in choice if reason))
    return f"not for {type(model).__name__}: {reasons[0]}" if reasons else None


def _no_partial_decodings(model: GenerativeModel) -> str | None:
    if not {"encode", "decode"} <= model.capabilities:
        return "it cannot encode and decode"
    return None if model.spiking else "its latent has no time steps"


def _size(model: GenerativeModel) -> tuple[int, int]:
    parameters = list(model.parameters())
    tensors = [*parameters, *model.buffers()]
    return (
        sum(parameter.numel() for parameter in parameters),
        sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    )
