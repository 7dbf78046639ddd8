"""The tracker for MLflow."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.tracking.tracker import TrackedCell, Tracker, final_values, missing_package

EXPERIMENT = "spikegen-bench"
KEY = "bench.cell"
# Largest requests that MLflow takes.
PARAMETERS, PARAMETER_LENGTH, METRICS = 100, 6000, 1000


class MLflow(Tracker):
    """Runs of MLflow, one per cell, at MLFLOW_TRACKING_URI in MLFLOW_EXPERIMENT_NAME.

    A run that goes on skips what a killed process has logged after its last checkpoint.
    """

    def __init__(self, cell: TrackedCell, folder: Path, seen: int) -> None:
        import mlflow

        self._entities = mlflow.entities
        self._client = mlflow.MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = mlflow.set_experiment(name).experiment_id
        run = self._latest(experiment, cell.key) if seen else None
        if run is None:
            run = self._client.create_run(experiment, run_name=cell.name, tags={KEY: cell.key})
            self._log_settings(run.info.run_id, cell.settings)
        self._run, self._known = run.info.run_id, frozenset(run.data.metrics)
        self._client.update_run(self._run, status="RUNNING")
        self._logged = self._last_position()

    @classmethod
    def missing(cls) -> str | None:
        """Return what is missing to use MLflow; None if nothing is."""
        return missing_package("mlflow", "spikegen-bench[mlflow]")

    def scalars(self, seen: int, values: Mapping[str, float]) -> None:
        """Log each number under its name, unless the position is logged already."""
        if seen > self._logged:
            self._log(seen, values)

    def images(self, seen: int, grids: Mapping[str, np.ndarray]) -> None:
        """Log each grid ``(H, W, 3)`` under its name, unless the position is logged already."""
        if seen > self._logged:
            for name, grid in grids.items():
                self._client.log_image(self._run, grid, key=name, step=seen)

    def rows(self, seen: int, rows: pd.DataFrame) -> None:
        """Log the values that the run does not have yet."""
        values = final_values(rows)
        self._log(seen, {name: values[name] for name in values if name not in self._known})

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._run)

    def _latest(self, experiment: str, key: str) -> Any:
        """Return the latest run of a cell; None if there is none."""
        runs = self._client.search_runs(
            [experiment],
            f"tags.`{KEY}` = '{key}'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        return runs[0] if runs else None

    def _last_position(self) -> int:
        """Return the last position at which the run has numbers; -1 if it has none."""
        history = self._client.get_metric_history
        steps = [each.step for name in self._known for each in history(self._run, name)]
        return max(steps, default=-1)

    def _log_settings(self, run: str, settings: Mapping[str, object]) -> None:
        parameters = [
            self._entities.Param(name, str(value)[:PARAMETER_LENGTH])
            for name, value in settings.items()
        ]
        for start in range(0, len(parameters), PARAMETERS):
            self._client.log_batch(run, params=parameters[start : start + PARAMETERS])

    def _log(self, seen: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [self._entities.Metric(name, value, now, seen) for name, value in values.items()]
        for start in range(0, len(metrics), METRICS):
            self._client.log_batch(self._run, metrics=metrics[start : start + METRICS])
