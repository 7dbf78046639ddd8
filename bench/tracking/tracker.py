"""The contract of a tracker, which logs a cell while it is trained."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.store.schema import OK

Setting = str | int | float | bool
USUAL_EPOCH_SELECTION = "last"


@dataclass(frozen=True)
class TrackedCell:
    """A cell as its trackers see it.

    Attributes:
        key: hash of the cell's content, which is the same whenever the cell is run.
        name: name of the cell's folder, which no other cell of the run has.
        settings: model, backend, dataset, seed, protocol, versions and machine by name, such as
            ``model`` and ``protocol.epochs``.
    """

    key: str
    name: str
    settings: Mapping[str, Setting]


class Tracker(ABC):
    """The log of one cell, in a file or with a service.

    A package adds a tracker by an entry point of the group ``bench.trackers``. The name of the
    entry point is the name that ``--log`` takes. The horizontal axis of everything is the number of
    training images that the model has seen. If a method raises an error, the run warns of it, and
    goes on without the tracker.

    Args:
        cell: the cell.
        folder: folder for the tracker's files of this cell, which can be missing.
        seen: number of training images from which on the log is written: 0, or the position of the
            last checkpoint. What a killed process has logged beyond it is logged again.
    """

    @abstractmethod
    def __init__(self, cell: TrackedCell, folder: Path, seen: int) -> None: ...

    @classmethod
    def missing(cls) -> str | None:
        """Return what is missing to use the tracker, and how to get it; None if nothing is."""
        return None

    @abstractmethod
    def scalars(self, seen: int, values: Mapping[str, float]) -> None:
        """Log numbers.

        Args:
            seen: number of training images so far.
            values: numbers by name: ``losses/NAME`` of a batch, ``epoch_losses/NAME`` as the mean
                of an epoch, ``epoch`` as the number of finished epochs. In a training in stages
                the name of the stage stands before ``NAME``.
        """

    @abstractmethod
    def images(self, seen: int, grids: Mapping[str, np.ndarray]) -> None:
        """Log images.

        Args:
            seen: number of training images so far.
            grids: uint8 arrays ``(H, W, 3)``, each a grid of images, by name: ``images/inputs``,
                ``images/reconstructions`` or ``images/samples``.
        """

    def rows(self, seen: int, rows: pd.DataFrame) -> None:
        """Log all rows of the cell, once they are written; by default, their values as numbers.

        It is called again if another command adds metrics to the cell.

        Args:
            seen: number of training images of the finished training.
            rows: rows with the columns of ``results.parquet``.
        """
        self.scalars(seen, final_values(rows))

    def flush(self) -> None:  # noqa: B027
        """Write what is held back: the training saves a checkpoint, and never repeats this part."""

    def close(self) -> None:  # noqa: B027
        """End the log, whether the cell is finished or the run was stopped."""


def missing_package(module: str, requirement: str) -> str | None:
    """Return the sentence for :meth:`Tracker.missing` if a module cannot be found.

    Args:
        module: name of the module to import.
        requirement: what ``pip install`` takes, such as ``spikegen-bench[wandb]``.

    >>> missing_package("no_such_module", "no-such-package")
    "no_such_module is not installed: pip install 'no-such-package'"
    """
    if find_spec(module) is not None:
        return None
    return f"{module} is not installed: pip install '{requirement}'"


def final_values(rows: pd.DataFrame) -> dict[str, float]:
    """Return the value of each row that has one, by name.

    Args:
        rows: rows of one cell.

    Returns:
        Values under names such as ``metrics/psnr/test``, with layer, time step, noise and selection
        of the epoch where a row has them.
    """
    values = rows[(rows["status"] == OK) & rows["value"].notna()]
    return {_name(row): float(row["value"]) for row in values.to_dict("records")}


def _name(row: Mapping[Any, Any]) -> str:
    has = {column: value for column, value in row.items() if not pd.isna(value)}
    parts = [has[column] for column in ("metric", "split", "layer") if column in has]
    if "time_step" in has:
        parts.append(f"time_step_{has['time_step']}")
    if "noise_kind" in has:
        parts.append(f"{has['noise_kind']}_{has.get('noise_level', 0.0):g}")
    if has.get("epoch_selection", USUAL_EPOCH_SELECTION) != USUAL_EPOCH_SELECTION:
        parts.append(has["epoch_selection"])
    return "/".join(["metrics", *parts])


def flattened(facts: Mapping[str, Any]) -> dict[str, Setting]:
    """Return nested facts under dotted names, without those that are None; lists become text.

    >>> flattened({"seed": 0, "protocol": {"epochs": 2, "threads": None, "noise_levels": [0.1]}})
    {'seed': 0, 'protocol.epochs': 2, 'protocol.noise_levels': '[0.1]'}
    """
    flat: dict[str, Setting] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": each for inner, each in flattened(value).items()}
        elif value is not None:
            flat[name] = value if isinstance(value, Setting) else str(value)
    return flat
