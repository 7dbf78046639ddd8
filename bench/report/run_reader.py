"""A run directory as the report reads it: its rows, its cells and the files that they left."""

import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.report.query import none_met, select
from bench.store.run_directory import load_results

TRAINING_FILE = "training.json"
IMAGES_FILE = "images.npz"
SPIKES_FILE = "spikes.npz"
CELL = [
    "cell_key",
    "model",
    "model_version",
    "backend",
    "dataset",
    "dataset_variant",
    "dataset_fingerprint",
    "protocol",
    "protocol_hash",
    "seed",
]

Arrays = dict[str, np.ndarray]
# What numpy raises for a file that is cut off, no archive, or holds something else.
_DAMAGE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError, TypeError)


class Run:
    """A run directory, read when it is asked for.

    Attributes:
        path: the run directory.
        unreadable: why a file could not be read, by its path; filled while files are read.
    """

    def __init__(self, path: str | os.PathLike[str], where: Sequence[str] = ()) -> None:
        """Name the run directory, and which of its rows are meant; :attr:`rows` checks both.

        Args:
            path: the run directory.
            where: conditions as :func:`bench.report.query.select` takes them; cells without a
                row that meets them are left out.
        """
        self.path = Path(path)
        self._where = where
        self.unreadable: dict[Path, str] = {}

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The rows that are meant, as :func:`bench.load_results` gives them.

        Raises:
            BenchError: not a run directory, one of another schema version, or conditions that no
                row meets.
        """
        rows = load_results(self.path)
        chosen = select(rows, self._where)
        if chosen.empty and self._where:
            raise BenchError(none_met(rows, self._where))
        return chosen

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row a cell that has a folder: the columns ``CELL`` and ``folder``, its path.

        Sorted by dataset, protocol, model, backend and seed.
        """
        folders = {path.name.rpartition("-")[2]: path for path in self.path.glob("cells/*/")}
        known = self.rows.sort_values("dataset_variant", na_position="last")
        cells = known[CELL].drop_duplicates("cell_key")
        cells = cells.assign(folder=cells["cell_key"].map(folders)).dropna(subset="folder")
        order = ["dataset", "protocol", "protocol_hash", "model", "backend", "seed"]
        return cells.sort_values(order, ignore_index=True)

    def training(self, folder: Path) -> list[dict[str, Any]] | None:
        """The epochs of a cell's training: each with ``losses`` by name, ``images``, ``seconds``.

        None where there is no such file, or it is damaged (see :attr:`unreadable`).
        """
        path = folder / TRAINING_FILE
        try:
            epochs = json.loads(path.read_text(encoding="utf-8"))["epochs"]
            for epoch in epochs:
                for value in epoch["losses"].values():
                    float(value)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._damaged(path, error)
            return None
        return list(epochs)

    def images(self, folder: Path) -> Arrays | None:
        """A cell's images, uint8 ``(N, C, H, W)`` by name, or None as in :meth:`training`.

        ``latent_flip`` is ``(L, N, C, H, W)`` with its levels in ``latent_flip_levels``, ``(L,)``.
        """
        path = folder / IMAGES_FILE
        arrays = self._arrays(path)
        return arrays if arrays is None or self._are_images(path, arrays) else None

    def spikes(self, folder: Path) -> Arrays | None:
        """A cell's latent spikes, bool ``(T, N, D)``: ``posterior`` and ``prior``; else None."""
        path = folder / SPIKES_FILE
        arrays = self._arrays(path)
        if arrays is None or all(array.ndim == 3 for array in arrays.values()):
            return arrays
        self._damaged(path, ValueError("expected arrays of shape (T, N, D)"))
        return None

    def having(self, file: str) -> Iterator[Any]:
        """The cells, as named tuples, whose folder holds a file of that name."""
        for cell in self.cells.itertuples(index=False):
            folder: Any = cell.folder
            if (folder / file).is_file():
                yield cell

    def _arrays(self, path: Path) -> Arrays | None:
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except FileNotFoundError:
            return None
        except _DAMAGE as error:
            self._damaged(path, error)
            return None

    def _are_images(self, path: Path, arrays: Arrays) -> bool:
        levels = arrays.get("latent_flip_levels", np.empty(0))
        for name, array in arrays.items():
            if name == "latent_flip_levels":
                continue
            steps = (array.shape[0],) if name == "latent_flip" else ()
            fits = array.ndim == 4 + len(steps) and array.shape[-3] in (1, 3)
            if array.dtype != np.uint8 or not fits or (steps and levels.shape != steps):
                self._damaged(path, ValueError(f"{name} has the shape {array.shape}"))
                return False
        return True

    def _damaged(self, path: Path, error: Exception) -> None:
        said = " ".join(str(error).split())
        self.unreadable[path] = f"{path} is damaged ({said}): remove it and run again"
