"""The contract of a metric.

A metric is a subclass of :class:`Metric`, registered under the entry-point group ``bench.metrics``
(``docs/plugins.md``). Write:

- ``name``, ``unit``, ``higher_is_better`` and ``tolerance``, which describe its values;
- ``needs``, which lists the passes over the trained model that it reads (:data:`Need`);
- ``update``, which adds one batch to running sums and keeps no images;
- ``compute``, which yields one :class:`Observation` per number after the last batch.

A complete metric, shown four test images in one batch:

>>> class LargestError(Metric):
...     name, unit, higher_is_better, tolerance = "largest_error", "1", False, 0.05
...     needs = frozenset({"reconstructions"})
...     largest, images = 0.0, 0
...
...     def update(self, batch):
...         errors = (batch.images - batch.originals).abs()
...         self.largest = max(self.largest, errors.max().item())
...         self.images += len(batch.images)
...
...     def compute(self, facts):
...         yield Observation(self.largest, n=self.images, split="test")

>>> import torch
>>> from bench.protocol import load_protocol
>>> metric = LargestError(load_protocol("smoke"))
>>> metric.update(Batch("test", torch.zeros(4, 1, 8, 8), torch.full((4, 1, 8, 8), 0.5), {}))
>>> [observation] = metric.compute(ModelFacts(0, 0, TrainingRecord((), {}, None), None))
>>> observation.value, observation.n
(0.5, 4)
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor

from bench.metrics.extractors.extractor import Extractors, Features
from bench.metrics.feature_pairs import GeneratedFeatures
from bench.protocol import Protocol
from bench.recording.layer_activity import LayerActivity
from bench.recording.training_record import TrainingRecord
from bench.store.schema import UNBOUNDED, Bounds, Group, Headline, Status

# What a metric can read. A metric receives only the passes that it lists.
Need = Literal[
    "reconstructions",  # all test images, reconstructed
    "generated",  # the protocol's generated_images samples
    "features",  # features of all samples, from the metric's extractors
    "noisy_reconstructions",  # noise_images test images, under each noise and level
    "partial_decodings",  # images decoded from the first t = 1..T time steps
    "latents",  # latents of training images, of test images and of the prior
    "training_step",  # a batch of training images, for the activity of a training step
    "activity",  # activity of layers, within these three passes
    "spikes",  # the same, for metrics that are not applicable without spiking layers
    "parameters",  # the model's number of parameters and their size
    "training",  # the record of the training
    "sampling_time",  # seconds of timed calls of sample
    "selections",  # values of metrics at the selected epochs
]


@dataclass(frozen=True)
class Observation:
    """One number that a metric computed, or the reason why there is none.

    Attributes:
        value: the number; None exactly if ``status`` is not ``ok``.
        n: number of images that the value is computed from.
        split: images that the value is about: ``train``, ``test`` or ``generated``.
        layer: name of the layer or part of the model; None for the whole model.
        status: ``ok``, or the kind of reason why there is no number.
        reason: reason why there is no number, in words.
        ci_low: lower end of the 95 % confidence interval; None if there is no interval.
        ci_high: upper end of the 95 % confidence interval; None if there is no interval.
        time_step: time step, counted from 1; None for all time steps together.
        noise_kind: kind of the noise that was added; None if the metric adds no noise.
        noise_level: level of the noise; None for a kind without levels.
        extractor: description of the feature extractor, preprocessing included.
        extractor_sha256: SHA-256 of the extractor's weights, in hex.
        epoch_selection: rule by which the epoch was chosen; None for the protocol's rule.
    """

    value: float | None
    n: int | None = None
    split: str | None = None
    layer: str | None = None
    status: Status = "ok"
    reason: str | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    time_step: int | None = None
    noise_kind: str | None = None
    noise_level: float | None = None
    extractor: str | None = None
    extractor_sha256: str | None = None
    epoch_selection: str | None = None


@dataclass(frozen=True)
class Batch:
    """One batch of output images of a model.

    Attributes:
        split: ``test`` for reconstructions of test images, ``generated`` for samples, ``train``
            in the pass ``training_step``.
        images: output images of the model, ``(N, C, H, W)`` in [-1, 1]; in the pass
            ``training_step`` the training images.
        originals: images that were reconstructed, ``(N, C, H, W)`` in [-1, 1]; None for samples.
        activity: activity of the model's layers during the batch, by layer name, if a metric needs
            ``activity`` or ``spikes``; empty in the passes ``noisy_reconstructions`` and
            ``partial_decodings``.
        noise_kind: kind of the noise that was added, in the pass ``noisy_reconstructions``.
        noise_level: level of the noise; None for a kind without levels.
        noise_free: reconstructions without the noise, ``(N, C, H, W)`` in [-1, 1].
        time_step: number of time steps that were decoded, in the pass ``partial_decodings``.
        network_evaluations: evaluations of the network of a sampler of many steps while these
            samples were drawn, in the pass ``generated`` if a metric needs ``activity``; None for a
            model that samples in one pass.
        extractors: source of the images' features; read it through :meth:`features`.
    """

    split: Literal["train", "test", "generated"]
    images: Tensor
    originals: Tensor | None
    activity: Mapping[str, LayerActivity]
    noise_kind: str | None = None
    noise_level: float | None = None
    noise_free: Tensor | None = None
    time_step: int | None = None
    network_evaluations: int | None = None
    extractors: Extractors | None = None

    def features(self, extractor: str) -> Features:
        """Return the named extractor's features ``(N, D)`` of ``images``.

        They are computed once per batch, however many metrics ask for them.
        """
        assert self.extractors is not None
        return self.extractors.features(extractor, self.images)


@dataclass(frozen=True)
class LatentBatch:
    """One batch of latents.

    Attributes:
        split: ``train`` or ``test`` for posterior latents of such images, ``prior`` for latents
            drawn from the prior.
        latents: spike trains ``(T, N, D)`` in {0, 1}, or ``(N, D)`` from a model without time.
        labels: classes of the images, integers ``(N,)``; None if unknown and for the prior.
    """

    split: Literal["train", "test", "prior"]
    latents: Tensor
    labels: Tensor | None

    @property
    def rates(self) -> Tensor:
        """Firing rates ``(N, D)``; of a model without time the latents themselves.

        >>> import torch
        >>> trains = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
        >>> LatentBatch("prior", trains, None).rates
        tensor([[0.5000, 0.0000]])
        """
        return self.latents.mean(0) if self.latents.ndim == 3 else self.latents


@dataclass(frozen=True)
class SamplingTime:
    """Timed calls of ``sample``.

    Attributes:
        images: number of images per call.
        seconds: wall-clock seconds of each call.
        replayed: number of these calls that were replayed from a CUDA graph.
        eager: reason why none could be replayed; None if there is none.
    """

    images: int
    seconds: tuple[float, ...]
    replayed: int = 0
    eager: str | None = None


@dataclass(frozen=True)
class ModelSize:
    """Size of a model or of some of its modules.

    Attributes:
        parameters: number of parameters.
        footprint: bytes of parameters and buffers.
    """

    parameters: int
    footprint: int


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a trained model, other than its output batches.

    Attributes:
        parameter_count: number of parameters.
        footprint: bytes of parameters and buffers.
        training: losses, images and seconds of each epoch.
        sampling: timed calls of ``sample``; None if no metric needs them or the model cannot
            sample.
        extractors: source of the features of reference images.
        generated: features of all generated images, by extractor, for metrics that need
            ``features``.
        selections: values of the metrics in ``selections_of``, by metric name and by selection
            (``last``, ``best_test_loss``, ``best_per_metric``), as far as training kept them.
        higher_is_better: direction of the metrics in ``selections``, by metric name.
        to_sample: size of the modules that sampling needs; None if the model cannot sample.
    """

    parameter_count: int
    footprint: int
    training: TrainingRecord
    sampling: SamplingTime | None
    extractors: Extractors | None = None
    generated: GeneratedFeatures | None = None
    selections: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)
    to_sample: ModelSize | None = None


class Metric(ABC):
    """One metric. It receives batches, so that memory does not grow with the number of images.

    Attributes:
        name: registered name, which is the row's ``metric``.
        unit: unit of the values; "1" for values without a unit.
        higher_is_better: direction of improvement; None if there is no better direction.
        tolerance: relative change that the regression gate accepts.
        version: version of the computation; raise it whenever a change of the code moves values.
        needs: passes that the metric needs; a model that lacks one gets a ``not_applicable`` row.
        needs_any: passes of which the metric needs at least one, and receives all that the model
            supports.
        extractors: registered names of the extractors whose features the metric reads; if one is
            unavailable, the metric is ``skipped`` before any pass runs for it.
        selects_epochs: True if ``best_per_metric`` selects an epoch by this metric.
        selections_of: registered names of the metrics whose values at the selected epochs the
            metric reads from ``selections``; they are computed there even if nobody asked for them.
        has_scale: True if real images and noise are scored by the metric too, once per dataset.
        reproducible: False if the metric measures the machine, so that values differ between runs.
        label: name for people; the registered name with spaces if empty. Not inherited.
        group: group of metrics in reports.
        bounds: smallest and largest possible value, which no interval over seeds exceeds.
        headline: place among the main numbers of a run; None for other metrics. Not inherited.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    higher_is_better: ClassVar[bool | None]
    tolerance: ClassVar[float]
    version: ClassVar[str] = "1"
    needs: ClassVar[frozenset[Need]] = frozenset()
    needs_any: ClassVar[frozenset[Need]] = frozenset()
    extractors: ClassVar[tuple[str, ...]] = ()
    selects_epochs: ClassVar[bool] = False
    selections_of: ClassVar[tuple[str, ...]] = ()
    has_scale: ClassVar[bool] = False
    reproducible: ClassVar[bool] = True
    label: ClassVar[str] = ""
    group: ClassVar[Group] = "quality"
    bounds: ClassVar[Bounds] = UNBOUNDED
    headline: ClassVar[Headline | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # A subclass of a headline metric is not a headline itself, and has a name of its own.
        cls.headline = cls.__dict__.get("headline")
        cls.label = cls.__dict__.get("label", "")

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol

    def inapplicable(self) -> str | None:
        """Return why the protocol rules this metric out, or None. Called before any pass."""
        return None

    def update(self, batch: Batch) -> None:  # noqa: B027
        """Add one batch. Called only for the passes that the metric needs."""

    def update_latents(self, batch: LatentBatch) -> None:  # noqa: B027
        """Add one batch of latents. Called only if the metric needs ``latents``."""

    @abstractmethod
    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield the observations. Called once, after the last batch."""
