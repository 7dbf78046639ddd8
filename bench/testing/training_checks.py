"""Checks of a model's training: losses, weights, checkpoints and resumption."""

import copy
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from bench.errors import one_line
from bench.model import GenerativeModel
from bench.system.checksums import SummedFolder
from bench.system.progress import WorkReporter
from bench.testing.checks import CheckFailedError, require
from bench.testing.model_subject import STEPS, ModelSubject
from bench.training.checkpoints import CheckpointError, Checkpoints, Interval
from bench.training.loop import BestEpochs, train
from bench.training.losses import checked_losses
from bench.training.stages import stage_epochs
from bench.training.training_log import TrainingLog

BATCHES_BEFORE_THE_STOP = 2


class _Stopped(BaseException):
    """Ends a training after its checkpoint, as a signal does."""


class _StoppingCheckpoints(Checkpoints):
    """Saves one checkpoint in the middle of an epoch, and stops the training there.

    Args:
        folder: folder of the checkpoint.
        epoch: index of the epoch, from 0.
    """

    def __init__(self, folder: SummedFolder, epoch: int) -> None:
        super().__init__(folder, Interval())
        self._epochs_left, self._batches = epoch, 0

    def due(self, epoch_ended: bool) -> bool:
        if epoch_ended:
            self._epochs_left, self._batches = self._epochs_left - 1, 0
        else:
            self._batches += 1
        return self._epochs_left == 0 and self._batches == BATCHES_BEFORE_THE_STOP

    def save(self, state: Mapping[str, Any]) -> None:
        super().save(state)
        raise _Stopped


def _learns(subject: ModelSubject) -> None:
    model = subject.built().train()
    before = copy.deepcopy(dict(model.named_parameters()))
    for step in range(STEPS):
        losses = checked_losses(model, subject.learn(model, step))
        for name, value in losses.items():
            number = float(value)
            require(
                abs(number) < float("inf"),
                f"the loss {name!r} is {number} in step {step + 1} of {STEPS}; expected a finite "
                "number",
            )
    changed = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    require(
        changed,
        f"{STEPS} training steps change no parameter: call backward() on the loss and step() on "
        "the optimiser in training_step",
    )


def _weights_are_all(subject: ModelSubject) -> None:
    model = subject.evaluated()
    twin = subject.built(seed=1)
    twin.load_state_dict(model.state_dict())
    twin.eval()
    _require_same_outputs(
        subject,
        model,
        twin,
        "a model with the same state_dict gives other {}: register what its outputs depend on as "
        "parameters or buffers",
    )


def _resumes(subject: ModelSubject) -> None:
    straight = subject.built()
    _train(subject, straight, None)
    stages = straight.stages(subject.protocol)
    for stage in stage_epochs(stages, subject.protocol.epochs):
        _resumes_in(subject, straight, stage.first)


def _resumes_in(subject: ModelSubject, straight: GenerativeModel, epoch: int) -> None:
    """Check that a training that is stopped in an epoch goes on as one without a break.

    Args:
        subject: what the model is built from.
        straight: the model after a training without a break.
        epoch: index of the epoch, from 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = SummedFolder(Path(folder))
        with suppress(_Stopped):
            _train(subject, subject.built(), _StoppingCheckpoints(files, epoch))
        # Built from another seed, so that only the checkpoint can make the two equal.
        resumed = subject.built(seed=1)
        try:
            _train(subject, resumed, Checkpoints(files, Interval()))
        except CheckpointError as error:
            raise CheckFailedError(
                f"training_state cannot be loaded into a new model ({one_line(error.__cause__)}): "
                "see load_training_state"
                if error.__cause__
                else str(error)
            ) from error
    found = resumed.state_dict()
    differing = [k for k, v in straight.state_dict().items() if not torch.equal(v, found[k])]
    require(
        not differing,
        f"a resumed training ends with other values of {', '.join(differing[:3])} than one "
        "without a break: return all that training changes from training_state (an optimiser that "
        "is an attribute is found by itself)",
    )
    _require_same_outputs(
        subject, straight.eval(), resumed.eval(), "a resumed training ends with other {}"
    )


def _train(subject: ModelSubject, model: GenerativeModel, checkpoints: Checkpoints | None) -> None:
    train(
        model,
        subject.training_images,
        subject.protocol,
        seed=0,
        best=BestEpochs(lambda model: {}),
        log=TrainingLog(WorkReporter()),
        checkpoints=checkpoints,
        labels=subject.training_labels,
    )


@torch.no_grad()
def _require_same_outputs(
    subject: ModelSubject, one: GenerativeModel, other: GenerativeModel, message: str
) -> None:
    images, labels = subject.images(4), subject.labels(4)
    if "sample" in one.capabilities:
        first, second = (model.sample(4, subject.generator(), **labels) for model in (one, other))
        require(torch.equal(first, second), message.format("samples"))
    if "reconstruct" in one.capabilities:
        first, second = (
            model.reconstruct(images, subject.generator(), **labels) for model in (one, other)
        )
        require(torch.equal(first, second), message.format("reconstructions"))


TRAINING_CHECKS: dict[str, Callable[[ModelSubject], str | None]] = {
    "training steps return finite losses and change parameters": _learns,
    "state_dict holds all that outputs depend on": _weights_are_all,
    "a resumed training equals one without a break": _resumes,
}
