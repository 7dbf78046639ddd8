"""Checkpoints of a training: when one is due, and how it is saved and restored."""

import hashlib
import io
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.errors import BenchError, one_line
from bench.store.schema import CHECKPOINT_FILE
from bench.system.checksums import DamagedFileError, SummedFolder
from bench.system.formatting import duration_seconds

# Machines that are lent for minutes hand back files of limited size, so no file is larger.
PART_BYTES = 8 * 2**20
PARTS = "parts"
PART_SUFFIX = ".part"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Interval:
    """Interval between two checkpoints, in seconds or epochs; no checkpoints if both are None.

    Attributes:
        seconds: seconds since the last checkpoint, above 0.
        epochs: epochs since the last checkpoint, at least 1.
    """

    seconds: float | None = None
    epochs: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """Parse ``30s``, ``10min``, ``1.5h``, ``2epochs`` or ``never``.

        >>> Interval.parse("10min")
        Interval(seconds=600.0, epochs=None)
        >>> Interval.parse("2epochs")
        Interval(seconds=None, epochs=2)
        >>> Interval.parse("never")
        Interval(seconds=None, epochs=None)

        Raises:
            BenchError: if the text has another form, or the number is 0.
        """
        if text == "never":
            return cls()
        seconds = duration_seconds(text)
        if seconds is not None:
            return cls(seconds=seconds)
        match = re.fullmatch(r"(\d+)(?:\.0+)? ?epochs?", text.strip())
        if match and int(match[1]) > 0:
            return cls(epochs=int(match[1]))
        raise BenchError(
            f"Checkpoint interval {text!r}: expected for example 30s, 10min, 1h, 2epochs or never."
        )


class CheckpointError(Exception):
    """The checkpoint does not fit the model, whose code was changed after it was saved."""


class Checkpoints:
    """The checkpoint of one training, in a cell's folder.

    A state of more than 8 MiB is written as several parts, each named after its content. The
    checkpoint, which then only lists them, is written after them and before older parts go, so that
    a whole state is there at any time.

    Args:
        folder: folder of the cell.
        interval: interval between two checkpoints.
    """

    def __init__(self, folder: SummedFolder, interval: Interval) -> None:
        self._folder = folder
        self._interval = interval
        self._epochs = 0
        self._saved = time.monotonic()
        self._proven = False

    def due(self, epoch_ended: bool) -> bool:
        """Return True if a checkpoint is due; call after each batch and once after each epoch."""
        self._epochs += epoch_ended
        seconds, epochs = self._interval.seconds, self._interval.epochs
        if seconds is not None and time.monotonic() - self._saved >= seconds:
            return True
        return epochs is not None and epoch_ended and self._epochs >= epochs

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint by ``state``.

        Raises:
            TypeError: if the state holds values that cannot be read back from a checkpoint.
        """
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        self._prove(buffer)
        content = buffer.getvalue()
        names = self._write_parts(content) if len(content) > PART_BYTES else []
        with self._folder.write(CHECKPOINT_FILE) as file:
            if names:
                torch.save({PARTS: names}, file)
            else:
                file.write(content)
        self._remove_parts(keep=names)
        self._epochs, self._saved = 0, time.monotonic()

    def restore(self, load: Callable[[Mapping[str, Any]], None]) -> bool:
        """Pass the state that was saved last, with its tensors on the CPU, to ``load``.

        Returns:
            True if there was a whole checkpoint; ``load`` is not called without one.

        Raises:
            DamagedFileError: if a file was changed after it was written.
            CheckpointError: if ``load`` raises, because the state does not fit the model.
        """
        if not self._folder.exists(CHECKPOINT_FILE):
            return False
        content = self._folder.read(CHECKPOINT_FILE)
        try:
            state = _loaded(io.BytesIO(content))
            if state.keys() == {PARTS}:
                if not all(map(self._folder.exists, state[PARTS])):
                    _LOG.warning("the checkpoint lacks parts: training starts again")
                    return False
                state = _loaded(io.BytesIO(b"".join(map(self._folder.read, state[PARTS]))))
            load(state)
        except DamagedFileError:
            raise
        except Exception as error:
            raise CheckpointError(
                f"the checkpoint does not fit the model as it is now ({one_line(error)}): put the "
                f"code back, or delete {self._folder.path / CHECKPOINT_FILE} to train again"
            ) from error
        return True

    def remove(self) -> None:
        """Delete the checkpoint; do nothing if there is none."""
        self._folder.remove(CHECKPOINT_FILE)
        self._remove_parts(keep=[])

    def _write_parts(self, content: bytes) -> list[str]:
        """Write a checkpoint as parts, and return their names in order."""
        names = []
        for start in range(0, len(content), PART_BYTES):
            part = content[start : start + PART_BYTES]
            names.append(f"checkpoint-{hashlib.sha256(part).hexdigest()[:16]}{PART_SUFFIX}")
            with self._folder.write(names[-1]) as file:
                file.write(part)
        return names

    def _remove_parts(self, keep: Sequence[str]) -> None:
        for path in self._folder.path.glob(f"checkpoint-*{PART_SUFFIX}"):
            if path.name not in keep:
                self._folder.remove(path.name)

    def _prove(self, file: io.BytesIO) -> None:
        """Read the first checkpoint back, so that a bad state fails now and not at the restart."""
        if self._proven:
            return
        file.seek(0)
        try:
            _loaded(file)
        except Exception as error:
            raise TypeError(
                "the training state cannot be a checkpoint: it can hold tensors, numbers, strings, "
                f"lists, tuples and dicts only ({one_line(error)})"
            ) from error
        self._proven = True


def _loaded(file: io.BytesIO) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state
