"""When a training is written down, and how it is read again."""

import io
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from bench.errors import BenchError, one_line
from bench.store.schema import CHECKPOINT_FILE
from bench.system.checksums import SummedFolder

_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Interval:
    """How often a checkpoint is due; never, if neither is given.

    Attributes:
        seconds: since the last one.
        epochs: since the last one.
    """

    seconds: float | None = None
    epochs: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """``30s``, ``10min``, ``1.5h``, ``2epochs`` or ``never``.

        Raises:
            BenchError: anything else.
        """
        if text == "never":
            return cls()
        match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|min|h|epochs?)", text.strip())
        number = float(match[1]) if match else 0.0
        if match and number > 0:
            if match[2] in _SECONDS:
                return cls(seconds=number * _SECONDS[match[2]])
            if number.is_integer():
                return cls(epochs=int(number))
        raise BenchError(
            f"Checkpoint interval {text!r}: expected for example 30s, 10min, 1h, 2epochs or never."
        )


class CheckpointError(Exception):
    """A checkpoint was written by other code than now reads it."""


class Checkpoints:
    """The checkpoint of one training, in a cell's folder."""

    def __init__(self, folder: SummedFolder, interval: Interval) -> None:
        self._folder = folder
        self._interval = interval
        self._epochs = 0
        self._saved = time.monotonic()
        self._proven = False

    def due(self, epoch_ended: bool) -> bool:
        """Whether it is time; asked after each batch, and once after each epoch."""
        self._epochs += epoch_ended
        seconds, epochs = self._interval.seconds, self._interval.epochs
        if seconds is not None and time.monotonic() - self._saved >= seconds:
            return True
        return epochs is not None and epoch_ended and self._epochs >= epochs

    def save(self, state: Mapping[str, Any]) -> None:
        """Put a state in place of the last one.

        Raises:
            TypeError: it holds what could not be read again.
        """
        with self._folder.write(CHECKPOINT_FILE) as file:
            torch.save(dict(state), file)
            self._prove(file)
        self._epochs, self._saved = 0, time.monotonic()

    def restore(self, load: Callable[[Mapping[str, Any]], None]) -> bool:
        """Have ``load`` take in the state that was saved last, on the CPU, if there is one.

        Raises:
            DamagedFileError: it is not what was written.
            CheckpointError: it cannot be taken in.
        """
        if not self._folder.exists(CHECKPOINT_FILE):
            return False
        content = self._folder.read(CHECKPOINT_FILE)
        try:
            load(_loaded(io.BytesIO(content)))
        except Exception as error:
            raise CheckpointError(
                f"the checkpoint does not fit the model as it is now ({one_line(error)}): put the "
                f"code back, or delete {self._folder.path / CHECKPOINT_FILE} to train anew"
            ) from error
        return True

    def remove(self) -> None:
        """Delete the checkpoint, if there is one."""
        self._folder.remove(CHECKPOINT_FILE)

    def _prove(self, file: io.BytesIO) -> None:
        """Read the first one back: better to fail now than when it is needed."""
        if self._proven:
            return
        file.seek(0)
        try:
            _loaded(file)
        except Exception as error:
            raise TypeError(
                "the training state cannot be a checkpoint: it may hold tensors, numbers, strings, "
                f"lists, tuples and dicts only ({one_line(error)})"
            ) from error
        self._proven = True


def _loaded(file: io.BytesIO) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state
