"""The tracker for Weights & Biases."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from bench.tracking.tracker import TrackedCell, Tracker, final_values, missing_package

PROJECT = "spikegen-bench"
POSITION = "images_seen"


class WandB(Tracker):
    """Runs of Weights & Biases, one per cell; its own environment variables configure it.

    A run is never rewritten: what a killed process logged after its last checkpoint is there twice.
    """

    def __init__(self, cell: TrackedCell, folder: Path, seen: int) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._as_image = wandb.Image
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=cell.key,
            name=cell.name,
            config=dict(cell.settings),
            dir=folder,
            resume="allow",
            # Each cell has a run, and cells of a cluster are logged at the same time.
            reinit="create_new",
        )
        self._run.define_metric("*", step_metric=POSITION)

    @classmethod
    def missing(cls) -> str | None:
        """Return what is missing to use Weights & Biases; None if nothing is."""
        return missing_package("wandb", "spikegen-bench[wandb]")

    def scalars(self, seen: int, values: Mapping[str, float]) -> None:
        """Log numbers at one step."""
        self._run.log({**values, POSITION: seen})

    def images(self, seen: int, grids: Mapping[str, np.ndarray]) -> None:
        """Log grids ``(H, W, 3)`` at one step."""
        drawn = {name: self._as_image(grid) for name, grid in grids.items()}
        self._run.log({**drawn, POSITION: seen})

    def rows(self, seen: int, rows: pd.DataFrame) -> None:
        """Put the values into the summary of the run."""
        self._run.summary.update(final_values(rows))

    def close(self) -> None:
        """Finish the run, which waits until everything is sent."""
        self._run.finish()
