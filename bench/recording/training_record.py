"""Record of a training: losses, images, seconds and scores of each epoch."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class EpochRecord:
    """Record of one epoch.

    Attributes:
        losses: mean of each loss by name.
        images: number of training images.
        seconds: time spent on training steps.
        stage: name of the stage; "" if the training has no stages.
        scores: scores after the epoch by name, such as ``test_loss``; empty if it was not scored.
    """

    losses: dict[str, float]
    images: int
    seconds: float
    stage: str = ""
    scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingRecord:
    """Record of a model's training.

    Attributes:
        epochs: records of the epochs, in order.
        selected: number of the epoch, from 1, whose weights are kept under each label (see
            ``BestEpochs``).
        peak_memory: largest memory over all epochs, in bytes; None if it cannot be measured.
        steps: number of training steps.
        replayed: number of steps that were replayed from a CUDA graph.
        eager: reason why no step could be replayed; None if there is none.
    """

    epochs: tuple[EpochRecord, ...]
    selected: dict[str, int]
    peak_memory: int | None
    steps: int = 0
    replayed: int = 0
    eager: str | None = None

    @property
    def images(self) -> int:
        """Number of training images over all epochs."""
        return sum(epoch.images for epoch in self.epochs)
