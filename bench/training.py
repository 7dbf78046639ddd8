"""The training loop: epochs, their record, and which epoch's weights are kept."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.batches import (
    batch_count,
    preserved_randomness,
    seed_everything,
    to_unit_range,
    training_batches,
)
from bench.devices import PeakMemory
from bench.model import GenerativeModel, Step
from bench.progress import Reporter
from bench.protocol import Protocol

LAST = "last"
BEST_TEST_LOSS = "best_test_loss"
Weights = Mapping[str, Tensor]


class TrainingDivergedError(ArithmeticError):
    """The loss is no longer a finite number."""


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


@dataclass(frozen=True)
class Score:
    """What an epoch is judged by."""

    value: float
    higher_is_better: bool


@dataclass
class BestEpochs:
    """Keeps the weights of the best epoch under each of several scores.

    Attributes:
        score: scores a model by label, after each epoch; no labels, nothing to compare.
        selected: the best epoch so far, from 1, by label.
        weights: its weights, by label.
    """

    score: Callable[[GenerativeModel], dict[str, Score]]
    selected: dict[str, int] = field(default_factory=dict)
    weights: dict[str, Weights] = field(default_factory=dict)
    _best: dict[str, Score] = field(default_factory=dict)

    def epoch_ended(self, epoch: int, model: GenerativeModel) -> None:
        """Score the model, and keep its weights wherever it is the best so far."""
        for label, score in self.score(model).items():
            best = self._best.get(label)
            if best is None or _better(score, best):
                self._keep(label, epoch, model)
                self._best[label] = score

    def training_ended(self, epoch: int, model: GenerativeModel) -> None:
        """Keep the last epoch's weights under the label ``last``."""
        self._keep(LAST, epoch, model)

    def _keep(self, label: str, epoch: int, model: GenerativeModel) -> None:
        self.selected[label] = epoch
        self.weights[label] = {
            name: value.detach().cpu().clone() for name, value in model.state_dict().items()
        }


def _better(score: Score, best: Score) -> bool:
    return score.value > best.value if score.higher_is_better else score.value < best.value


def warm_up(model: GenerativeModel, images: Tensor, protocol: Protocol) -> None:
    """Take a training step, for what happens once in a process: compiling, loading, planning.

    Args:
        model: thrown away afterwards.
        images: uint8 ``(N, C, H, W)`` on its device.
        protocol: resolved for the model and dataset.
    """
    model.train()
    batch = to_unit_range(images[: protocol.batch_size])
    model.training_step(batch, Step(0.0, batch_count(len(images), protocol.batch_size)))


def train(
    model: GenerativeModel,
    images: Tensor,
    protocol: Protocol,
    seed: int,
    best: BestEpochs,
    reporter: Reporter,
) -> TrainingRecord:
    """Train ``model`` as a resolved protocol says, in place.

    Args:
        model: on its device, freshly built.
        images: uint8 ``(N, C, H, W)`` on the same device.
        protocol: resolved for the model and dataset.
        seed: of the data order and of what the model draws.
        best: is told of each epoch, and holds the kept weights afterwards.
        reporter: is told of each batch.

    Raises:
        TrainingDivergedError: a loss is NaN or infinite.
    """
    seed_everything(seed)
    order = torch.Generator().manual_seed(seed)
    memory = PeakMemory(model.device)
    epochs, peaks = [], []
    for epoch in range(protocol.epochs):
        memory.reset()
        model.train()
        epochs.append(_train_epoch(model, images, protocol, order, epoch, reporter))
        peaks.append(memory.bytes())
        model.eval()
        with preserved_randomness():
            best.epoch_ended(epoch + 1, model)
    best.training_ended(protocol.epochs, model)
    known = [peak for peak in peaks if peak is not None]
    return TrainingRecord(tuple(epochs), dict(best.selected), max(known, default=None))


def _train_epoch(
    model: GenerativeModel,
    images: Tensor,
    protocol: Protocol,
    order: torch.Generator,
    epoch: int,
    reporter: Reporter,
) -> EpochRecord:
    batches = batch_count(len(images), protocol.batch_size)
    flip = protocol.horizontal_flip != "never"
    sums: dict[str, float] = {}
    started = time.perf_counter()
    for i, batch in enumerate(training_batches(images, protocol.batch_size, order, flip)):
        progress = (epoch + i / batches) / protocol.epochs
        losses = model.training_step(batch, Step(progress, batches))
        if not math.isfinite(losses["loss"]):
            raise TrainingDivergedError(
                f"the loss became {losses['loss']} in epoch {epoch + 1}, batch {i + 1}"
            )
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value * len(batch)
        reporter.trained_batch(epoch, protocol.epochs, i, batches, losses["loss"])
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    seconds = time.perf_counter() - started
    means = {name: total / len(images) for name, total in sums.items()}
    return EpochRecord(means, len(images), seconds)
