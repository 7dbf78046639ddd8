"""The record of a training: losses, images and seconds of each epoch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: mean losses by name, images seen, and seconds spent on training steps."""

    losses: dict[str, float]
    images: int
    seconds: float


@dataclass(frozen=True)
class TrainingRecord:
    """How a model was trained.

    Attributes:
        epochs: the epochs in order.
        selected: the epoch, from 1, whose weights are kept under each label (see BestEpochs).
        peak_memory: bytes, the largest over the epochs; None where the system cannot tell.
    """

    epochs: tuple[EpochRecord, ...]
    selected: dict[str, int]
    peak_memory: int | None
