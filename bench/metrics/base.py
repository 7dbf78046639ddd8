"""The contract of a metric: what it says of itself, what it is shown, what it returns."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from bench.protocol import Protocol
from bench.spikes import LayerActivity
from bench.training import TrainingRecord

Need = Literal["reconstructions", "generated", "spikes", "sampling_time"]
Status = Literal["ok", "failed", "skipped", "not_applicable"]


@dataclass(frozen=True)
class Observation:
    """One number that a metric found, or the reason why there is none.

    Attributes:
        value: the number; None exactly if ``status`` is not ``ok``.
        n: how many images it rests on.
        split: what it was measured on: ``train``, ``test`` or ``generated``.
        layer: the layer it holds for; None for the whole model.
        status: ``ok``, or why there is no number.
        reason: in words, where there is none.
    """

    value: float | None
    n: int | None = None
    split: str | None = None
    layer: str | None = None
    status: Status = "ok"
    reason: str | None = None


@dataclass(frozen=True)
class Batch:
    """One batch of a pass over the test set (``test``) or over generated images (``generated``).

    Attributes:
        split: ``test`` or ``generated``.
        images: reconstructions or generated images ``(N, C, H, W)`` in [-1, 1].
        originals: what was reconstructed, same shape; None for generated images.
        activity: what the model's layers put out meanwhile, by layer.
    """

    split: Literal["test", "generated"]
    images: Tensor
    originals: Tensor | None
    activity: Mapping[str, LayerActivity]


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
    """

    parameter_count: int
    footprint: int
    training: TrainingRecord
    sampling: SamplingTime | None


class Metric(ABC):
    """One metric: fed batch by batch, so that memory does not grow with the number of images.

    Attributes:
        name: its registered name, as in rows.
        unit: of its values, "1" if they have none.
        higher_is_better: the direction, None if there is none.
        tolerance: relative change that the regression gate lets pass.
        version: raised whenever a change of the code moves its values.
        needs: what it must be shown; a model that cannot gets a ``not_applicable`` row.
        selects_epochs: whether ``best_per_metric`` picks an epoch by it.
        reproducible: False if it measures the machine and so differs from run to run.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    higher_is_better: ClassVar[bool | None]
    tolerance: ClassVar[float]
    version: ClassVar[str] = "1"
    needs: ClassVar[frozenset[Need]] = frozenset()
    selects_epochs: ClassVar[bool] = False
    reproducible: ClassVar[bool] = True

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol

    def update(self, batch: Batch) -> None:  # noqa: B027
        """Take in one batch; called only for passes that the metric needs."""

    @abstractmethod
    def compute(self, facts: Facts) -> Iterable[Observation]:
        """The observations, after the last batch."""
