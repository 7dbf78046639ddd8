"""The contract of a metric: what it says of itself, what it is shown, what it returns."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor

from bench.metrics.extractors.extractor import Extractors, Features
from bench.metrics.feature_pairs import GeneratedFeatures
from bench.protocol import Protocol
from bench.recording.activity import LayerActivity
from bench.recording.training_record import TrainingRecord
from bench.store.schema import Headline, Status

Need = Literal[
    "reconstructions",
    "generated",
    "features",
    "noisy_reconstructions",
    "partial_decodings",
    "latents",
    "spikes",
    "sampling_time",
    "selections",
]


@dataclass(frozen=True)
class Observation:
    """One number that a metric found, or the reason why there is none.

    Attributes:
        value: the number; None exactly if ``status`` is not ``ok``.
        n: how many images it rests on.
        split: what it was measured on: ``train``, ``test`` or ``generated``.
        layer: the layer or part of the model it holds for; None for the whole model.
        status: ``ok``, or why there is no number.
        reason: in words, where there is none.
        ci_low: lower end of the 95 % confidence interval; None where there is none.
        ci_high: its upper end.
        time_step: the time step, from 1, it holds for; None for all of them.
        noise_kind: what noise was added, None for none.
        noise_level: how much of it.
        extractor: what gave the features it rests on, preprocessing included.
        extractor_sha256: of the extractor's weights.
        epoch_selection: how the epoch was chosen; None for the protocol's way.
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
    """One batch of images that a model put out in one of the passes.

    Attributes:
        split: ``test`` for reconstructions of test images, ``generated`` for samples.
        images: what the model put out, ``(N, C, H, W)`` in [-1, 1].
        originals: what was reconstructed, same shape; None for generated images.
        activity: what the model's layers did meanwhile, by layer; empty in passes with noise and
            of partial decodings.
        noise_kind: what noise was added, in the pass ``noisy_reconstructions``; else None.
        noise_level: how much of it; None for a kind that has no level.
        noise_free: the reconstructions without the noise, same shape.
        time_step: how many of the first time steps were decoded, in ``partial_decodings``.
        extractors: gives features of images; see :meth:`features`.
    """

    split: Literal["test", "generated"]
    images: Tensor
    originals: Tensor | None
    activity: Mapping[str, LayerActivity]
    noise_kind: str | None = None
    noise_level: float | None = None
    noise_free: Tensor | None = None
    time_step: int | None = None
    extractors: Extractors | None = None

    def features(self, extractor: str) -> Features:
        """What an extractor finds in ``images``; computed once for all metrics that ask."""
        assert self.extractors is not None
        return self.extractors.features(extractor, self.images)


@dataclass(frozen=True)
class LatentBatch:
    """One batch of latents.

    Attributes:
        split: ``train`` or ``test`` for the posterior's of such images, ``prior`` for the prior's.
        latents: spike trains ``(T, N, D)`` in {0, 1}, or ``(N, D)`` of a model without time.
        labels: integer classes ``(N,)`` of the images; None where unknown and for the prior's.
    """

    split: Literal["train", "test", "prior"]
    latents: Tensor
    labels: Tensor | None

    @property
    def rates(self) -> Tensor:
        """Firing rates ``(N, D)``; the latents themselves of a model without time."""
        return self.latents.mean(0) if self.latents.ndim == 3 else self.latents


@dataclass(frozen=True)
class SamplingTime:
    """Wall-clock seconds of each timed call of ``sample``, and its number of images."""

    images: int
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Facts:
    """What is known of a trained model beside its images.

    Attributes:
        parameter_count: number of parameters.
        footprint: bytes of parameters and buffers.
        training: how it was trained.
        sampling: how long sampling took; None if no metric asked or the model cannot sample.
        extractors: gives features of the reference images.
        generated: features of all generated images, by extractor, for metrics that need
            ``features``.
        selections: values of the metrics that select epochs, by metric and by selection (``last``,
            ``best_test_loss``, ``best_per_metric``), as far as training kept them.
        higher_is_better: the direction of those metrics.
    """

    parameter_count: int
    footprint: int
    training: TrainingRecord
    sampling: SamplingTime | None
    extractors: Extractors | None = None
    generated: GeneratedFeatures | None = None
    selections: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)


class Metric(ABC):
    """One metric: fed batch by batch, so that memory does not grow with the number of images.

    Attributes:
        name: its registered name, as in rows.
        unit: of its values, "1" if they have none.
        higher_is_better: the direction, None if there is none.
        tolerance: relative change that the regression gate lets pass.
        version: raised whenever a change of the code moves its values.
        needs: what it must be shown; a model that cannot gets a ``not_applicable`` row.
        needs_any: what it must be shown one of, and is shown all that the model can.
        extractors: registered names of those it asks for features; if one cannot be had here, the
            metric is ``skipped``, before anything runs for it.
        selects_epochs: whether ``best_per_metric`` picks an epoch by it.
        reproducible: False if it measures the machine and so differs from run to run.
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
    reproducible: ClassVar[bool] = True
    headline: ClassVar[Headline | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # A variant of a metric is no headline because the metric is one.
        cls.headline = cls.__dict__.get("headline")

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol

    def inapplicable(self) -> str | None:
        """Why there can be no number under the protocol, known before anything runs; else None."""
        return None

    def update(self, batch: Batch) -> None:  # noqa: B027
        """Take in one batch; called only for passes that the metric needs."""

    def update_latents(self, batch: LatentBatch) -> None:  # noqa: B027
        """Take in one batch of latents; called only if the metric needs ``latents``."""

    @abstractmethod
    def compute(self, facts: Facts) -> Iterable[Observation]:
        """The observations, after the last batch."""
