"""The losses that a model's training steps return: their check and their sums."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bench.model import GenerativeModel
from bench.system.numbers import described, python_number

Losses = Mapping[str, Tensor | float]
# A GPU works on while the host waits for a number of it, so on a GPU losses are read rarely.
BATCHES_PER_READING = 50
# The loss that is shown as progress if there is one; else all are.
MAIN_LOSS = "loss"


def checked_losses(model: GenerativeModel, returned: Any) -> Losses:
    """Return the losses of a training step, without a computation graph.

    Tensors without dimensions stay on their device, so that nothing waits for it.

    Args:
        model: model that made the step.
        returned: result of its ``training_step``.

    Raises:
        TypeError: the result is not a mapping of strings to numbers, or is empty; the message names
            the model and what it returned.
    """
    if not isinstance(returned, Mapping):
        raise _wrong(model, described(returned))
    losses: dict[str, Tensor | float] = {}
    for name, value in returned.items():
        number = value.detach() if _is_scalar(value) else python_number(value)
        if not isinstance(name, str) or number is None:
            raise _wrong(model, f"{described(value)} under the key {name!r}")
        losses[name] = number
    if not losses:
        raise _wrong(model, "no losses")
    return losses


class RunningLosses:
    """The sums of an epoch's losses, each loss weighted by the images of its batch.

    They are added up in float64 on the device of the losses. A step can leave out a loss that it
    does not compute: the mean of a loss is over the images of the steps that return it.

    Args:
        device: device of the model.

    Attributes:
        unread: number of batches since the last :meth:`read`.
    """

    def __init__(self, device: torch.device) -> None:
        self.unread = 0
        self._period = 1 if device.type == "cpu" else BATCHES_PER_READING
        self._sums: dict[str, Tensor | float] = {}
        self._images: dict[str, int] = {}
        self._latest: dict[str, Tensor | float] = {}

    @property
    def due(self) -> bool:
        """True if enough batches were added to read the losses."""
        return self.unread >= self._period

    def add(self, losses: Losses, images: int) -> None:
        """Add the mean losses of a batch of images."""
        for name, value in losses.items():
            exact = value.double() if isinstance(value, Tensor) else float(value)
            self._sums[name] = self._sums.get(name, 0.0) + exact * images
            self._images[name] = self._images.get(name, 0) + images
        self._latest |= losses
        self.unread += 1

    def read(self) -> dict[str, float]:
        """Return the latest value of each loss; this waits for the device."""
        self.unread = 0
        return {name: float(value) for name, value in self._latest.items()}

    def not_finite(self) -> dict[str, float]:
        """Return the losses whose sum is NaN or infinite, with their latest values if these are.

        Where the latest value is finite again, the sum is returned.
        """
        latest = {name: float(value) for name, value in self._latest.items()}
        return {
            name: total if math.isfinite(latest.get(name, total)) else latest[name]
            for name, total in self.sums().items()
            if not math.isfinite(total)
        }

    def means(self) -> dict[str, float]:
        """Return the mean of each loss per image so far."""
        return {name: total / self._images[name] for name, total in self.sums().items()}

    def sums(self) -> dict[str, float]:
        """Return the sum of each loss over its images so far."""
        return {name: float(total) for name, total in self._sums.items()}

    def images(self) -> dict[str, int]:
        """Return the number of images of each loss so far."""
        return dict(self._images)

    def restart(
        self, sums: Mapping[str, float], images: Mapping[str, int], latest: Mapping[str, float]
    ) -> None:
        """Begin with the results of earlier calls, or with none.

        Args:
            sums: result of :meth:`sums`.
            images: result of :meth:`images`.
            latest: result of :meth:`read`.
        """
        self._sums, self._images, self._latest = dict(sums), dict(images), dict(latest)
        self.unread = 0


def _is_scalar(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0 and value.dtype.is_floating_point


def _wrong(model: GenerativeModel, what: str) -> TypeError:
    return TypeError(
        f"training_step of {type(model).__name__} returned {what}; return a dictionary of losses "
        "by name, as in {'loss': loss.detach()}"
    )
