"""Evaluation of a trained model: run the passes that the metrics need, collect observations."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import get_args

import torch
from torch import Tensor, nn

from bench.datasets.batches import batch_count
from bench.errors import NotInstalledError, SkippedError, one_line
from bench.evaluation.class_labels import labels_for
from bench.evaluation.context import CellContext
from bench.evaluation.finished_samples import FinishedSamples
from bench.evaluation.given_outputs import NO_MODEL, GivenOutputs
from bench.evaluation.model_calls import ModelCalls
from bench.evaluation.passes import Passes
from bench.metrics.extractors.extractor import Extractors
from bench.metrics.feature_pairs import GeneratedFeatures
from bench.metrics.metric import (
    Batch,
    LatentBatch,
    Metric,
    ModelFacts,
    ModelSize,
    Need,
    Observation,
    SamplingTime,
)
from bench.metrics.metric_contract import checked_observations
from bench.model import GenerativeModel
from bench.protocol import BEST_TEST_LOSS, Protocol
from bench.recording.layer_activity import NotRecorded
from bench.recording.training_record import TrainingRecord
from bench.store.schema import FAILED, NOT_APPLICABLE, NOT_INSTALLED, SKIPPED, Status
from bench.system.devices import tf32
from bench.system.numbers import described, python_number
from bench.system.random_state import seed_everything
from bench.training.loop import Score

Scores = Callable[[GenerativeModel], dict[str, Score]]
UNTRAINED = TrainingRecord((), {}, None)
NO_TRAINING = "its weights were given, without a training"
_Lacking = Mapping[Need, str | None]
_METHODS: Mapping[Need, str] = {
    "reconstructions": "reconstruct",
    "generated": "sample",
    "features": "sample",
    "noisy_reconstructions": "reconstruct or decode",
    "partial_decodings": "decode_prefixes",
    "latents": "encode or sample_latents",
}


@dataclass(frozen=True)
class Selections:
    """Values of the metrics that select epochs, at the epochs that training kept.

    Attributes:
        values: values by metric name and by selection.
        higher_is_better: direction of each metric.
    """

    values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluator:
    """Evaluates models of one cell.

    Attributes:
        context: data and settings of the cell.
        shared: extractors that another evaluator of the cell has loaded; None for own ones.
    """

    context: CellContext
    shared: Extractors | None = None

    @cached_property
    def extractors(self) -> Extractors:
        """The extractors of the cell, each loaded when it is first used."""
        return Extractors(self.context) if self.shared is None else self.shared

    def of_epochs(self) -> "Evaluator":
        """Return the evaluator that scores epochs, on as many samples as the protocol says."""
        n = self.context.protocol.scored_images
        if n is None:
            return self
        protocol = self.context.protocol.model_copy(update={"generated_images": n})
        return Evaluator(replace(self.context, protocol=protocol), self.extractors)

    @cached_property
    def _calls_by_model(self) -> dict[GenerativeModel, ModelCalls]:
        return {}

    def _calls(self, model: GenerativeModel) -> ModelCalls:
        """Return the calls of a model, the same after each epoch: their graphs are kept."""
        return self._calls_by_model.setdefault(model, ModelCalls(model))

    def evaluate(
        self,
        model: GenerativeModel,
        metrics: Sequence[type[Metric]],
        training: TrainingRecord | None,
        selections: Selections | None = None,
        finished: FinishedSamples | None = None,
    ) -> dict[str, list[Observation]]:
        """Compute metrics of a model.

        Args:
            model: trained model on the context's device.
            metrics: classes of the metrics.
            training: losses, images and seconds of each epoch; None if nothing was trained here.
            selections: values of the metrics that select epochs; None if no metric needs them.
            finished: samples that an interrupted evaluation has drawn; None to keep none.

        Returns:
            Observations by metric name. A metric that fails or is not applicable has one
            observation with the reason; the others are computed all the same.
        """
        trained = training is not None
        runner = _MetricRunner(model, GeneratedFeatures(self.extractors), trained)
        runner.build(metrics, self.context.protocol)
        runner.check_extractors(self.extractors)
        passes = Passes(
            model.eval(),
            self.context,
            self.extractors,
            self._calls(model),
            recorded=runner.reads_activity(),
            finished=finished,
        )
        with torch.no_grad():
            sampling = runner.show_passes(passes)
        whole, samples = model_size([model]), "sample" in model.capabilities
        chosen = selections or Selections()
        facts = ModelFacts(
            training=training or UNTRAINED,
            sampling=sampling,
            extractors=self.extractors,
            generated=runner.features,
            selections=chosen.values,
            higher_is_better=chosen.higher_is_better,
            parameter_count=whole.parameters,
            footprint=whole.footprint,
            to_sample=model_size(model.sampling_modules()) if samples else None,
        )
        with torch.no_grad():
            return {metric.name: runner.compute(metric.name, facts) for metric in metrics}

    def test_loss(self, model: GenerativeModel) -> float:
        """Return the model's objective on every test image once, averaged over images."""
        context, images = self.context, self.context.test_images
        seed_everything(context.seed)
        generator = torch.Generator(model.device).manual_seed(context.seed)
        batches = batch_count(len(images), context.protocol.evaluation_batch_size)
        calls, labels = self._calls(model), labels_for(model, context.test_labels)
        total, done = 0.0, 0
        with torch.no_grad():
            for batch in Passes(model, context).test_batches():
                shown = labels.of(done, len(batch))
                returned = calls.test_loss(batch, batches, generator, **shown)
                done += len(batch)
                loss = python_number(returned)
                if loss is None:
                    raise TypeError(
                        f"test_loss of {type(model).__name__} returned {described(returned)}; "
                        "return the mean loss of the batch as a scalar"
                    )
                total += loss * len(batch)
        return total / len(images)


def model_size(modules: Iterable[nn.Module]) -> ModelSize:
    """Return the size of modules, in which what they share counts once."""
    named = list(modules)
    parameters = {parameter for module in named for parameter in module.parameters()}
    buffers = {buffer for module in named for buffer in module.buffers()}
    footprint = sum(tensor.numel() * tensor.element_size() for tensor in parameters | buffers)
    return ModelSize(sum(parameter.numel() for parameter in parameters), footprint)


class _MetricRunner:
    """Shows the batches of passes to metrics; a metric that fails does not affect the others."""

    def __init__(self, model: GenerativeModel, features: GeneratedFeatures, trained: bool) -> None:
        self.model = model
        self.features = features
        self._lacking = _lacking(model, trained)
        self._metrics: dict[str, Metric] = {}
        self._ended: dict[str, Observation] = {}

    def build(self, metrics: Iterable[type[Metric]], protocol: Protocol) -> None:
        """Build the metrics; those that do not apply to the model have ended."""
        for metric_class in metrics:
            with self._guarded(metric_class):
                metric = metric_class(protocol)
                self._metrics[metric.name] = metric
                reason = metric.inapplicable() or _unmet_need(metric, self.model, self._lacking)
                if reason:
                    self._end(metric, NOT_APPLICABLE, reason)

    def needs(self, need: Need) -> bool:
        """Return True if the model can meet the need and a metric has it."""
        return not self._lacking[need] and any(_uses(metric, need) for metric in self._running())

    def reads_activity(self) -> bool:
        """Return True if a metric reads the activity of the model's layers."""
        return any(map(_reads_activity, self._running()))

    def check_extractors(self, extractors: Extractors) -> None:
        """Skip the metrics whose extractors are unavailable."""
        for metric in self._running():
            with self._guarded(metric):
                for name in metric.extractors:
                    extractors.get(name)

    def show_passes(self, passes: Passes) -> SamplingTime | None:
        """Run the passes that the metrics need; return the times of sampling if a metric does."""
        self.show("reconstructions", passes.reconstructions)
        self.show_generated(passes.generated)
        self.show("training_step", passes.training_step)
        self.show("noisy_reconstructions", passes.noisy_reconstructions)
        self.show("partial_decodings", passes.partial_decodings)
        self.show_latents(passes.latents)
        return passes.sampling_time() if self.needs("sampling_time") else None

    def show(self, need: Need, run: Callable[[], Iterator[Batch]]) -> None:
        """Run a pass if any metric needs it."""
        if self.needs(need):
            for batch in run():
                self._show(need, batch)

    def show_generated(self, run: Callable[[], Iterator[Batch]]) -> None:
        """Run the pass of generated images if any metric needs them or their features."""
        if self.needs("generated") or self.needs("features"):
            for batch in run():
                self._check_finite("features", batch.images)
                names = {name for each in self._users("features") for name in each.extractors}
                with tf32(False):
                    for name in sorted(names):
                        self.features.add(name, batch.images)
                self._show("generated", batch)

    def show_latents(self, run: Callable[[], Iterator[LatentBatch]]) -> None:
        """Run the pass over latents if any metric needs it."""
        if self.needs("latents"):
            for batch in run():
                self._check_finite("latents", batch.latents)
                for metric in self._users("latents"):
                    with self._guarded(metric):
                        metric.update_latents(batch)

    def compute(self, name: str, facts: ModelFacts) -> list[Observation]:
        """Return the observations of a metric, or the one that says why there are none."""
        observations: list[Observation] = []
        if name not in self._ended:
            metric = self._metrics[name]
            with self._guarded(metric):
                observations = checked_observations(metric, metric.compute(facts))
        return [self._ended[name]] if name in self._ended else observations

    def _show(self, need: Need, batch: Batch) -> None:
        self._check_finite(need, batch.images)
        without_activity = replace(batch, activity=NotRecorded())
        recorded = not isinstance(batch.activity, NotRecorded)
        for metric in self._users(need):
            with self._guarded(metric):
                if not _reads_activity(metric):
                    metric.update(without_activity)
                elif recorded:
                    metric.update(batch)

    def _check_finite(self, need: Need, values: Tensor) -> None:
        """Fail the metrics that need a pass if the model's output has a NaN."""
        if not values.isfinite().all():
            name = type(self.model).__name__
            reason = f"{_METHODS[need]} of {name} gave values that are NaN, expected finite values"
            for metric in self._users(need):
                self._end(metric, FAILED, reason)

    def _running(self) -> list[Metric]:
        return [metric for name, metric in self._metrics.items() if name not in self._ended]

    def _users(self, need: Need) -> list[Metric]:
        return [metric for metric in self._running() if _uses(metric, need)]

    @contextmanager
    def _guarded(self, metric: Metric | type[Metric]) -> Iterator[None]:
        """End the metric if it fails; metrics compute in float32 whatever the model does."""
        try:
            with tf32(False):
                yield
        except NotInstalledError as error:
            self._end(metric, NOT_INSTALLED, str(error))
        except SkippedError as error:
            self._end(metric, SKIPPED, str(error))
        except Exception as error:
            self._end(metric, FAILED, one_line(error))

    def _end(self, metric: Metric | type[Metric], status: Status, reason: str) -> None:
        self._ended[metric.name] = Observation(None, status=status, reason=reason)


def selection_scores(evaluator: Evaluator, metric_classes: Iterable[type[Metric]]) -> Scores:
    """Return the function that scores a model after each epoch.

    It follows the protocol's ``epoch_selection``. ``last``: no score. ``best_test_loss``: the
    objective on the test set. ``best_per_metric``: each metric that selects epochs, and the
    objective if the model has one, so that the three selections can be compared.

    Args:
        evaluator: evaluator of the cell.
        metric_classes: metrics of the cell.
    """
    evaluator = evaluator.of_epochs()
    match evaluator.context.protocol.epoch_selection:
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
    """Return the first value of each metric that has one, by metric name.

    Args:
        evaluator: evaluator of the cell.
        metric_classes: metrics to compute.
        model: model to score.
    """
    metrics = list(metric_classes)
    observations = evaluator.evaluate(model, metrics, UNTRAINED)
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


def _reads_activity(metric: Metric) -> bool:
    return _uses(metric, "activity") or _uses(metric, "spikes")


def _uses(metric: Metric, need: Need) -> bool:
    return need in metric.needs or need in metric.needs_any


def _lacking(model: GenerativeModel, trained: bool) -> _Lacking:
    """Return, for each need, why the model cannot meet it; None if it can."""
    if isinstance(model, GivenOutputs):
        return _lacking_outputs(model)
    able = model.capabilities
    no_samples = None if "sample" in able else "it cannot sample"
    no_reconstructions = None if "reconstruct" in able else "it cannot reconstruct"
    return {
        "reconstructions": no_reconstructions,
        "noisy_reconstructions": no_reconstructions,
        "generated": no_samples,
        "features": no_samples,
        "sampling_time": no_samples,
        "training_step": None if trained else NO_TRAINING,
        "latents": None if "encode" in able else "it cannot encode",
        "partial_decodings": _no_partial_decodings(model),
        "selections": None if trained else NO_TRAINING,
        "parameters": None,
        "training": None if trained else NO_TRAINING,
        "activity": None,
        "spikes": None if model.spiking_layers() else "it has no spiking layers",
    }


def _lacking_outputs(given: GivenOutputs) -> _Lacking:
    """Return the same for outputs that were given."""
    able: dict[Need, str | None] = {"generated": None, "features": None}
    able["reconstructions"] = None if given.reconstructs else "no reconstructions were given"
    return {need: able.get(need, NO_MODEL) for need in get_args(Need)}


def _unmet_need(metric: Metric, model: GenerativeModel, lacking: _Lacking) -> str | None:
    """Return why the model cannot meet the needs of the metric; None if it can."""
    reasons = [reason for need in sorted(metric.needs) if (reason := lacking[need])]
    choice = [lacking[need] for need in sorted(metric.needs_any)]
    if choice and all(choice):
        reasons.append(" and ".join(reason for reason in choice if reason))
    if not reasons:
        return None
    given = isinstance(model, GivenOutputs)
    return reasons[0] if given else f"not for {type(model).__name__}: {reasons[0]}"


def _no_partial_decodings(model: GenerativeModel) -> str | None:
    if not {"encode", "decode"} <= model.capabilities:
        return "it cannot encode and decode"
    return None if model.spiking_latents else "its latent has no time steps"
