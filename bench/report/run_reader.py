"""Read a run directory for reports: its rows, its cells and the files of each cell."""

import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError
from bench.report.query import no_match, select
from bench.store.aggregation import across_seeds, of_models
from bench.store.declarations import MetricDeclaration, headlines, known_declarations
from bench.store.other_neurons import mark_other_neurons
from bench.store.run_directory import load_results
from bench.store.schema import (
    CELL,
    CELL_VARIATION,
    CELLS,
    IMAGES_FILE,
    NEAREST_FILE,
    SPIKES_FILE,
    TRAINING_FILE,
    Headline,
    View,
)

Arrays = dict[str, np.ndarray]
# Errors of numpy for a file that is cut off, is no archive, or has other contents.
_DAMAGE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError, TypeError)


class Run:
    """A run directory. Each part is read when it is first used.

    Attributes:
        path: the run directory.
        unreadable: reasons why files could not be read, by path; filled while files are read.
    """

    def __init__(self, path: str | os.PathLike[str], where: Sequence[str] = ()) -> None:
        """Name the run directory and conditions for its rows; :attr:`rows` checks both.

        Args:
            path: the run directory.
            where: conditions, as :func:`bench.report.query.select` takes them. Cells without a row
                that meets them are left out.
        """
        self.path = Path(path)
        self._where = where
        self.unreadable: dict[Path, str] = {}

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The rows that meet the conditions, with the columns of :func:`bench.load_results`.

        Backends that compute another neuron have their mark.

        Raises:
            BenchError: not a run directory, an unknown schema version, or conditions that no row
                meets.
        """
        rows = load_results(self.path)
        chosen = select(rows, self._where)
        if chosen.empty and self._where:
            raise BenchError(no_match(rows, self._where))
        return mark_other_neurons(chosen, rows)

    @cached_property
    def declarations(self) -> dict[str, MetricDeclaration]:
        """Declarations of the run's metrics by name, as far as anything declares them."""
        return known_declarations(self.path, self.rows["metric"])

    def declaration(self, metric: str) -> MetricDeclaration:
        """Return what a metric declares; the defaults for one that nobody knows."""
        return self.declarations.get(metric, MetricDeclaration())

    def label(self, metric: str) -> str:
        """Return the name of a metric for people."""
        return self.declaration(metric).label or metric.replace("_", " ")

    def across_seeds(self, rows: pd.DataFrame, apart: Iterable[str] = ()) -> pd.DataFrame:
        """Average rows over seeds, with intervals within the metrics' bounds.

        See :func:`bench.across_seeds`.
        """
        bounds = {name: each.bounds for name, each in self.declarations.items()}
        return across_seeds(rows, bounds, apart)

    def headlines(self, view: View) -> dict[str, Headline]:
        """Return the headlines that a table or plot shows, in their order, by metric name."""
        return headlines(self.path, self.rows["metric"], view)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """The cells of models that have a folder, one per row.

        The columns are ``cell_key``, the columns that name a cell, ``seed`` and ``folder``, its
        path. Sorted by dataset, protocol, model, backend and seed.
        """
        folders = {path.name.rpartition("-")[2]: path for path in self.path.glob(f"{CELLS}/*/")}
        known = of_models(self.rows).sort_values("dataset_variant", na_position="last")
        cells = known[["cell_key", *CELL, *CELL_VARIATION, "seed"]].drop_duplicates("cell_key")
        cells = cells.assign(folder=cells["cell_key"].map(folders)).dropna(subset="folder")
        order = ["dataset", "protocol", "model", "protocol_hash", "backend", "seed"]
        return cells.sort_values(order, ignore_index=True)

    def training(self, folder: Path) -> list[dict[str, Any]] | None:
        """Return the epochs of a cell's training.

        Each has ``losses`` and ``scores`` by name, ``images`` and ``seconds``.

        Returns None if the file is missing or damaged; :attr:`unreadable` has the reason.
        """
        path = folder / TRAINING_FILE
        try:
            epochs = json.loads(path.read_text(encoding="utf-8"))["epochs"]
            for epoch in epochs:
                for value in (*epoch["losses"].values(), *epoch.get("scores", {}).values()):
                    float(value)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._damaged(path, error)
            return None
        return list(epochs)

    def images(self, folder: Path) -> Arrays | None:
        """Return a cell's images, uint8 ``(N, C, H, W)``, by name.

        ``latent_flip`` is ``(L, N, C, H, W)``, with its levels in ``latent_flip_levels``, ``(L,)``.
        Returns None if the file is missing or damaged; :attr:`unreadable` has the reason.
        """
        path = folder / IMAGES_FILE
        arrays = self._arrays(path)
        return arrays if arrays is None or self._are_images(path, arrays) else None

    def nearest(self, folder: Path) -> Arrays | None:
        """Return a cell's samples and the training images nearest to them.

        ``samples`` and ``nearest`` are uint8 ``(N, C, H, W)``, ``distances`` ``(N,)``, and
        ``extractor`` is the name of the extractor. Returns None if the file is missing or damaged;
        :attr:`unreadable` has the reason.
        """
        path = folder / NEAREST_FILE
        arrays = self._arrays(path)
        if arrays is None:
            return None
        names = {"samples", "nearest", "distances", "extractor"}
        if set(arrays) != names or arrays["distances"].shape != arrays["samples"].shape[:1]:
            self._damaged(path, ValueError(f"expected {', '.join(sorted(names))} of equal length"))
            return None
        images = {name: arrays[name] for name in ("samples", "nearest")}
        same = images["samples"].shape == images["nearest"].shape
        return arrays if self._are_images(path, images) and same else None

    def spikes(self, folder: Path) -> Arrays | None:
        """Return a cell's latent spikes ``posterior`` and ``prior``, bool ``(T, N, D)``.

        Returns None if the file is missing or damaged; :attr:`unreadable` has the reason.
        """
        path = folder / SPIKES_FILE
        arrays = self._arrays(path)
        if arrays is None or all(array.ndim == 3 for array in arrays.values()):
            return arrays
        self._damaged(path, ValueError("expected arrays of shape (T, N, D)"))
        return None

    def having(self, file: str) -> Iterator[Any]:
        """Yield the cells whose folder has a file of this name, as named tuples."""
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
        message = " ".join(str(error).split())
        self.unreadable[path] = f"{path} is damaged ({message}): remove it and run again"
