"""Observations of a cell to its rows, and its rows to its folder."""

import dataclasses
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd
import torch

from bench.metrics.metric import Metric, Observation, Status
from bench.plan import Cell
from bench.store.run_directory import CellFolder, Row, frame
from bench.store.schema import SCHEMA_VERSION
from bench.system.devices import describe_device
from bench.system.environment import git_commit, suite_version


@dataclass(frozen=True)
class Scored:
    """The weights that were scored; all None if none were."""

    train_images: int | None = None
    epoch: int | None = None
    epoch_selection: str | None = None


@dataclass(frozen=True)
class CellRows:
    """Makes and keeps the rows of one cell.

    Attributes:
        cell: cell of the rows.
        folder: folder of the cell.
        metrics: names of all metrics of the cell, in the order of its rows.
        device: device of the model.
        run_id: identifier of the command.
    """

    cell: Cell
    folder: CellFolder
    metrics: tuple[str, ...]
    device: torch.device
    run_id: str

    def row(self, metric: type[Metric], observation: Observation, scored: Scored) -> Row:
        """Return an observation as a row.

        Args:
            metric: class of the metric.
            observation: one of its observations.
            scored: the weights that were scored.
        """
        cell, info = self.cell, self.cell.info
        return {
            **dataclasses.asdict(observation),
            "reason": _without_home(observation.reason),
            "epoch_selection": observation.epoch_selection or scored.epoch_selection,
            "schema_version": SCHEMA_VERSION,
            "run_id": self.run_id,
            "cell_key": cell.key,
            "model": cell.model,
            "model_version": cell.model_version,
            "backend": cell.backend,
            "dataset": cell.dataset,
            "dataset_variant": _variant(cell),
            "dataset_fingerprint": info.fingerprint if info else None,
            "train_images": scored.train_images,
            "protocol": cell.protocol.name,
            "protocol_hash": cell.protocol_hash,
            "seed": cell.seed,
            "epoch": scored.epoch,
            "metric": metric.name,
            "metric_version": metric.version,
            "higher_is_better": metric.higher_is_better,
            "unit": metric.unit,
            "device": describe_device(self.device),
            "version": suite_version(),
            "git_commit": git_commit(),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def everywhere(self, metrics: Iterable[type[Metric]], status: Status, reason: str) -> list[Row]:
        """Return one row without a number for each metric.

        Args:
            metrics: classes of the metrics.
            status: status of the rows.
            reason: reason why there is no number.
        """
        observation = Observation(None, status=status, reason=reason)
        return [self.row(metric, observation, Scored()) for metric in metrics]

    def write(self, replaced: Iterable[type[Metric]], rows: Iterable[Row]) -> pd.DataFrame:
        """Replace all rows of the ``replaced`` metrics by ``rows``; returns the cell's rows.

        A cell that several protocols of the same values share keeps the name of the first.
        """
        kept, new = self.folder.rows(), frame(rows)
        if not kept.empty:
            new["protocol"] = kept["protocol"].iloc[0]
        kept = kept[~kept["metric"].isin([metric.name for metric in replaced])]
        merged = new if kept.empty else pd.concat([kept, new], ignore_index=True)
        order = {name: i for i, name in enumerate(self.metrics)}
        merged = merged.sort_values(
            "metric", key=lambda names: names.map(order), kind="stable", ignore_index=True
        )
        self.folder.write_rows(merged)
        return merged


def _without_home(reason: str | None) -> str | None:
    """Return the reason with the user's home folder as ``~``, because rows are published."""
    home = os.path.join(os.path.expanduser("~"), "")
    return reason.replace(home, "~/") if reason and home != os.sep else reason


def _variant(cell: Cell) -> str | None:
    """Return the dataset's variant, ``subset`` if the protocol uses only a part of it."""
    if cell.info is None:
        return None
    resolved, info = cell.resolved, cell.info
    cut = (resolved.train_images or info.train_size) < info.train_size or (
        resolved.test_images or info.test_size
    ) < info.test_size
    return "subset" if cut and info.variant == "complete" else info.variant
