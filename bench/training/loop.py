"""The training loop: epochs, their record, and the weights of the best epochs."""

import copy
import gc
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor

from bench.datasets.batches import batch_count, to_unit_range, training_batches
from bench.model import GenerativeModel
from bench.protocol import Protocol
from bench.recording.training_record import EpochRecord, TrainingRecord
from bench.system.devices import PeakMemoryMeter
from bench.system.random_state import (
    preserved_randomness,
    randomness,
    restore_randomness,
    seed_everything,
)
from bench.system.signals import Interrupted, StopRequest, postponed
from bench.training.checkpoints import Checkpoints
from bench.training.held_state import check_held
from bench.training.losses import MAIN_LOSS, RunningLosses, checked_losses
from bench.training.stages import StageEpochs, stage_epochs
from bench.training.steps import TrainingSteps
from bench.training.training_log import TrainingLog

LAST = "last"
Weights = Mapping[str, Tensor]
_LOG = logging.getLogger(__name__)


class TrainingDivergedError(ArithmeticError):
    """A loss became NaN or infinite."""


@dataclass(frozen=True)
class Score:
    """Score of a model after one epoch.

    Attributes:
        value: the score, a finite number.
        higher_is_better: True if a larger value is better.
    """

    value: float
    higher_is_better: bool


@dataclass
class BestEpochs:
    """The best epoch under each of several scores, with its weights.

    Attributes:
        score: function that returns the scores of a model by label, called after each epoch; an
            empty mapping if epochs are not compared.
        selected: number of the best epoch so far, from 1, by label.
        weights: weights of the best epoch so far, by label, on the CPU.
    """

    score: Callable[[GenerativeModel], dict[str, Score]]
    selected: dict[str, int] = field(default_factory=dict)
    weights: dict[str, Weights] = field(default_factory=dict)
    _best: dict[str, Score] = field(default_factory=dict)

    def epoch_ended(self, epoch: int, model: GenerativeModel) -> dict[str, float]:
        """Score the model, and keep its weights under each label with the best score so far.

        Args:
            epoch: number of the epoch, from 1.
            model: model after that epoch.

        Returns:
            The scores by name, which is the label without ``best_``; empty if epochs are not
            compared.
        """
        scores = self.score(model)
        better = {
            label: score
            for label, score in scores.items()
            if label not in self._best or _better(score, self._best[label])
        }
        self._best |= better
        self._keep(better, epoch, model)
        return {label.removeprefix("best_"): score.value for label, score in scores.items()}

    def training_ended(self, epoch: int, model: GenerativeModel) -> None:
        """Keep the weights of the last epoch under the label ``last``.

        Args:
            epoch: number of the last epoch, from 1.
            model: model after that epoch.
        """
        self._keep([LAST], epoch, model)

    def state_dict(self) -> dict[str, Any]:
        """Return the best epochs, scores and weights, for a checkpoint."""
        return {
            "selected": self.selected,
            "weights": {label: dict(weights) for label, weights in self.weights.items()},
            "best": {label: asdict(score) for label, score in self._best.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
        self.selected, self.weights = state["selected"], state["weights"]
        self._best = {label: Score(**score) for label, score in state["best"].items()}

    def _keep(self, labels: Iterable[str], epoch: int, model: GenerativeModel) -> None:
        """Keep the weights under each label; one copy for all, as nothing changes it."""
        if labels := list(labels):
            state = model.state_dict()
            weights = {name: value.to("cpu", copy=True) for name, value in state.items()}
            self.selected |= dict.fromkeys(labels, epoch)
            self.weights |= dict.fromkeys(labels, weights)


def _better(score: Score, best: Score) -> bool:
    return score.value > best.value if score.higher_is_better else score.value < best.value


def warm_up(
    model: GenerativeModel, images: Tensor, protocol: Protocol, labels: Tensor | None = None
) -> None:
    """Take a training step of each stage, so that code is compiled before training is timed.

    Args:
        model: model to throw away afterwards, since the steps change its weights.
        images: uint8 images ``(N, C, H, W)`` on the model's device.
        protocol: protocol resolved for the model and dataset.
        labels: classes of the images, int64 ``(N,)`` on that device, of a class-conditional model.

    Raises:
        TypeError: the step returns something other than losses by name.
    """
    model.train()
    batch = to_unit_range(images[: protocol.batch_size])
    batches = batch_count(len(images), protocol.batch_size, protocol.drop_last)
    steps = TrainingSteps(model, len(batch), batches)
    shown = None if labels is None else labels[: protocol.batch_size]
    for stage in stage_epochs(model.stages(protocol), protocol.epochs):
        _begin(model, steps, stage.name, images)
        checked_losses(model, steps.take(batch, 0.0, shown))


def train(
    model: GenerativeModel,
    images: Tensor,
    protocol: Protocol,
    *,
    seed: int,
    best: BestEpochs,
    log: TrainingLog,
    checkpoints: Checkpoints | None = None,
    rebuild: Callable[[], GenerativeModel] | None = None,
    labels: Tensor | None = None,
) -> TrainingRecord:
    """Train a model in place, resuming from its checkpoint if there is one.

    Args:
        model: untrained model, on its device.
        images: uint8 training images ``(N, C, H, W)`` on the same device.
        protocol: protocol resolved for the model and dataset.
        seed: seed of the data order and of the model's random draws.
        best: scores each epoch, and holds the selected weights afterwards.
        log: receiver of the losses and of images after each epoch.
        checkpoints: checkpoint to resume from and to save to; None to keep no checkpoint.
        rebuild: builds the untrained model again, to check that the first checkpoint holds all that
            training changes; None for no check.
        labels: classes of the images, int64 ``(N,)`` on that device, of a class-conditional model.

    Returns:
        Losses and seconds of each epoch, the selected epochs, and the peak memory.

    Raises:
        TrainingDivergedError: if a loss is NaN or infinite.
        TypeError: if a training step returns something other than losses by name, or changes what
            a checkpoint does not hold.
        CheckpointError: if the checkpoint does not fit the model.
        Interrupted: if Ctrl-C or SIGTERM stops the run, after a checkpoint was saved.
    """
    seed_everything(seed)
    training = _Training(
        model,
        images,
        protocol,
        seed=seed,
        best=best,
        log=log,
        checkpoints=checkpoints,
        rebuild=rebuild,
        labels=labels,
    )
    if checkpoints is not None and checkpoints.restore(training.load_state_dict):
        _LOG.info("going on from %s", training.place)
    training.begin()
    with postponed() as stop:
        while training.epoch < protocol.epochs:
            training.run_epoch(stop)
    best.training_ended(protocol.epochs, model)
    return training.record()


class _Training:
    """A training with its full state, which can be saved and restored between two batches.

    Attributes:
        epoch: index of the current epoch, from 0.
        epochs: records of the finished epochs.
        peak: largest memory so far in bytes; None if it cannot be measured.
    """

    def __init__(
        self,
        model: GenerativeModel,
        images: Tensor,
        protocol: Protocol,
        *,
        seed: int,
        best: BestEpochs,
        log: TrainingLog,
        checkpoints: Checkpoints | None,
        rebuild: Callable[[], GenerativeModel] | None,
        labels: Tensor | None,
    ) -> None:
        self._rebuild = rebuild
        self._labels = labels
        self.epoch = 0
        self.epochs: list[EpochRecord] = []
        self.peak: int | None = None
        self._model, self._images, self._protocol = model, images, protocol
        self._best, self._log, self._checkpoints = best, log, checkpoints
        self._batches = batch_count(len(images), protocol.batch_size, protocol.drop_last)
        self._seen = min(len(images), self._batches * protocol.batch_size)
        self._memory = PeakMemoryMeter(model.device)
        self._order = torch.Generator().manual_seed(seed)
        self._order_of_epoch = self._order.get_state()
        self._batch, self._seconds = 0, 0.0
        self._stages = stage_epochs(model.stages(protocol), protocol.epochs)
        self._begun: StageEpochs | None = None
        self._losses = RunningLosses(model.device)
        full = min(len(images), protocol.batch_size)
        self._steps = TrainingSteps(model, full, self._batches)

    @property
    def place(self) -> str:
        """Current epoch and batch, as text for logs and messages."""
        return f"{self._epoch_in_words}, batch {self._batch} of {self._batches}"

    @property
    def _epoch_in_words(self) -> str:
        name = self._stage.name
        stage = f"stage {name}, " if name else ""
        return f"{stage}epoch {self.epoch + 1} of {self._protocol.epochs}"

    @property
    def _stage(self) -> StageEpochs:
        """The stage of the current epoch, and of the last one after the end."""
        return next((each for each in self._stages if self.epoch < each.end), self._stages[-1])

    def record(self) -> TrainingRecord:
        """Return the record of the finished training."""
        return TrainingRecord(
            tuple(self.epochs),
            dict(self._best.selected),
            self.peak,
            steps=self._steps.taken,
            replayed=self._steps.replayed,
            eager=self._steps.eager,
        )

    @property
    def _images_so_far(self) -> int:
        """Number of training images so far."""
        of_epoch = min(self._seen, self._batch * self._protocol.batch_size)
        return self.epoch * self._seen + of_epoch

    def begin(self) -> None:
        """Report where the training begins or goes on."""
        self._log.began(self._images_so_far, self._batch, self._batches)

    def run_epoch(self, stop: StopRequest) -> None:
        """Run the rest of the current epoch.

        Raises:
            TrainingDivergedError: if a loss is NaN or infinite.
            Interrupted: if ``stop`` was requested, after a checkpoint was saved.
        """
        stage = self._stage
        if stage != self._begun:
            _begin(self._model, self._steps, stage.name, self._images)
            self._begun = stage
            self._log.began_stage(stage.name)
        self._train(stop)
        self._model.eval()
        scores = self._score(stop) if self._is_scored(stage) else {}
        means = self._losses.means()
        self.epochs.append(EpochRecord(means, self._seen, self._seconds, stage.name, scores))
        _LOG.info("%s: %s", self._epoch_in_words, _in_words(means))
        latest, seen = self._losses.read(), self._images_so_far
        shown = self._model if stage == self._stages[-1] else None
        self._log.trained_epoch(self.epoch + 1, latest, means, scores, shown, seen=seen)
        self.epoch += 1
        self._order_of_epoch = self._order.get_state()
        self._batch, self._seconds = 0, 0.0
        self._losses.restart({}, {}, {})
        if self._checkpoints and self._checkpoints.due(epoch_ended=True):
            self._save(self._checkpoints)

    def state_dict(self) -> dict[str, Any]:
        """Return all values that the rest of the training depends on, for a checkpoint."""
        return {
            "epoch": self.epoch,
            "batch": self._batch,
            "order": self._order_of_epoch,
            "sums": self._losses.sums(),
            "loss_images": self._losses.images(),
            "latest": self._losses.read(),
            "seconds": self._seconds,
            "peak": self.peak,
            "steps": self._steps.state_dict(),
            "epochs": [asdict(record) for record in self.epochs],
            "model": self._model.state_dict(),
            "training": self._model.training_state(),
            "best": self._best.state_dict(),
            "randomness": randomness(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
        self.epoch, self._batch = state["epoch"], state["batch"]
        self._seconds, self.peak = state["seconds"], state["peak"]
        self._steps.load_state_dict(state["steps"])
        # Checkpoints of earlier versions, in which every step returned every loss, have no counts.
        done = min(self._seen, self._batch * self._protocol.batch_size)
        images = state.get("loss_images", dict.fromkeys(state["sums"], done))
        self._losses.restart(state["sums"], images, state.get("latest", {}))
        self.epochs = [EpochRecord(**record) for record in state["epochs"]]
        self._order_of_epoch = state["order"]
        self._order.set_state(state["order"])
        self._model.load_state_dict(state["model"])
        self._model.load_training_state(state["training"])
        self._best.load_state_dict(state["best"])
        restore_randomness(state["randomness"])

    def _train(self, stop: StopRequest) -> None:
        protocol = self._protocol
        flip = protocol.horizontal_flip != "never"
        batches = training_batches(
            self._images,
            self._labels,
            protocol.batch_size,
            self._order,
            flip=flip,
            drop_last=protocol.drop_last,
        )
        # Draw the batches before the checkpoint again: the random flips depend on their order.
        for _ in range(self._batch):
            next(batches)
        self._memory.reset()
        self._model.train()
        since = time.perf_counter()
        for batch, labels in batches:
            self._learn(batch, labels)
            if stop.signum is not None:
                self._stop_clock(since)
                self._save_and_stop(stop.signum)
            if self._checkpoints and self._checkpoints.due(epoch_ended=False):
                self._stop_clock(since)
                self._save(self._checkpoints)
                self._memory.reset()
                since = time.perf_counter()
        self._stop_clock(since)

    def _is_scored(self, stage: StageEpochs) -> bool:
        """Return True if the current epoch, which is of a stage, is one to score."""
        done = self.epoch + 1
        whole = (done - stage.first) % self._protocol.scored_every == 0
        return stage == self._stages[-1] and (whole or done == stage.end)

    def _score(self, stop: StopRequest) -> dict[str, float]:
        try:
            with stop.at_once(), preserved_randomness():
                scores = self._best.epoch_ended(self.epoch + 1, self._model)
        except Interrupted as error:
            self._save_and_stop(error.signum)
        if scores:
            # Garbage of the scores would count in the next epoch's peak memory.
            gc.collect()
        return scores

    def _learn(self, batch: Tensor, labels: Tensor | None) -> None:
        i, batches, epochs = self._batch, self._batches, self._protocol.epochs
        progress = (self.epoch + i / batches) / epochs
        losses = checked_losses(self._model, self._steps.take(batch, progress, labels))
        self._losses.add(losses, len(batch))
        self._batch += 1
        if self._losses.due:
            self._read_losses()

    def _read_losses(self) -> None:
        """Read and report the losses since the last reading.

        Raises:
            TrainingDivergedError: if one of them is NaN or infinite.
        """
        first, last = self._batch - self._losses.unread + 1, self._batch
        losses = self._losses.read()
        for name, value in self._losses.not_finite().items():
            where = f"batch {last}" if first == last else f"batches {first} to {last}"
            called = "the loss" if name == MAIN_LOSS else f"the loss {name}"
            raise TrainingDivergedError(
                f"{called} became {value} in epoch {self.epoch + 1}, {where}"
            )
        epochs, batches, seen = self._protocol.epochs, self._batches, self._images_so_far
        self._log.trained_batch(self.epoch, epochs, last - 1, batches, losses, seen=seen)

    def _stop_clock(self, since: float) -> None:
        """Add the seconds after ``since``, and update the peak memory."""
        if self._losses.unread:
            self._read_losses()
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)
        self._seconds += time.perf_counter() - since
        peak = self._memory.bytes()
        if peak is not None:
            self.peak = max(peak, self.peak or 0)

    def _save(self, checkpoints: Checkpoints) -> None:
        state = self.state_dict()
        self._log.saving()
        checkpoints.save(state)
        try:
            self._check_held(state)
        except Exception:
            checkpoints.remove()
            raise
        _LOG.info("checkpoint at %s", self.place)

    def _check_held(self, state: Mapping[str, Any]) -> None:
        """Check once that the model can be restored from a checkpoint's state."""
        if self._rebuild is None:
            return
        with preserved_randomness():
            restored = self._rebuild()
            restored.load_state_dict(state["model"])
            restored.load_training_state(copy.deepcopy(state["training"]))
            if self._begun is not None and self._begun.name:
                restored.begin_stage(self._begun.name, self._images)
        check_held(self._model, restored)
        self._rebuild = None

    def _save_and_stop(self, signum: int) -> NoReturn:
        if self._checkpoints:
            self._save(self._checkpoints)
        raise Interrupted(signum, self.place if self._checkpoints else "")


def _begin(model: GenerativeModel, steps: TrainingSteps, stage: str, images: Tensor) -> None:
    """Let a model and its steps begin a stage; do nothing for a training without stages."""
    if stage:
        with preserved_randomness():
            model.begin_stage(stage, images)
        steps.begin_stage(stage)


def _in_words(losses: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in losses.items())
