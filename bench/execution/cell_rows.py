"""The rows of one cell: from observations to rows, and from rows to the cell's folder."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd
import torch

from bench.execution.run_context import RunContext
from bench.metrics.metric import Metric, Observation
from bench.plan.cells import Cell
from bench.store.run_directory import Row, frame
from bench.store.schema import COMPLETE, SCHEMA_VERSION, Status
from bench.system.devices import describe_device
from bench.system.environment import git_commit, processor, suite_version


@dataclass(frozen=True)
class ScoredWeights:
    """The weights that an observation was computed with; all None if there were none.

    Attributes:
        train_images: number of images that they were trained on.
        epoch: number of the epoch after which they were saved, from 1.
        epoch_selection: how the epoch was selected.
    """

    train_images: int | None = None
    epoch: int | None = None
    epoch_selection: str | None = None


@dataclass(frozen=True)
class CellRows:
    """The rows of one cell.

    Attributes:
        cell: the cell.
        context: context of the run.
        device: device of the model.
    """

    cell: Cell
    context: RunContext
    device: torch.device

    def row(self, metric: type[Metric], observation: Observation, weights: ScoredWeights) -> Row:
        """Return an observation as a row.

        Args:
            metric: metric that was observed.
            observation: its value, or the reason why there is none.
            weights: weights that the metric was computed with.
        """
        cell, info = self.cell, self.cell.info
        return {
            **dataclasses.asdict(observation),
            "reason": _without_home(observation.reason),
            "epoch_selection": observation.epoch_selection or weights.epoch_selection,
            "schema_version": SCHEMA_VERSION,
            "run_id": self.context.run_id,
            "cell_key": cell.key,
            "model": cell.model,
            "model_version": cell.model_version,
            "backend": cell.backend,
            "dataset": cell.dataset,
            "dataset_variant": _variant(cell),
            "dataset_fingerprint": info.fingerprint if info else None,
            "train_images": weights.train_images,
            "protocol": cell.protocol_name,
            "protocol_hash": cell.protocol_hash,
            "seed": cell.seed,
            "epoch": weights.epoch,
            "metric": metric.name,
            "metric_version": metric.version,
            "higher_is_better": metric.higher_is_better,
            "unit": metric.unit,
            "device": describe_device(self.device),
            "processor": processor(),
            "version": suite_version(),
            "git_commit": git_commit(),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "kind": cell.kind,
        }

    def untrained(
        self, metrics: Iterable[type[Metric]], observed: Mapping[str, Iterable[Observation]]
    ) -> list[Row]:
        """Return the observations of a cell that trains nothing as rows.

        Args:
            metrics: metrics that were observed, in the order of the rows.
            observed: observations by name of the metric.
        """
        return [
            self.row(metric, observation, ScoredWeights())
            for metric in metrics
            for observation in observed[metric.name]
        ]

    def without_value(self, metric: type[Metric], status: Status, reason: str) -> Row:
        """Return the row of a metric that has no value.

        Args:
            metric: metric that was not computed.
            status: ``failed`` or ``skipped``.
            reason: why there is no value.
        """
        observation = Observation(None, status=status, reason=reason)
        return self.row(metric, observation, ScoredWeights())

    def write(self, replaced: Iterable[type[Metric]], rows: Iterable[Row]) -> pd.DataFrame:
        """Replace all rows of the ``replaced`` metrics by ``rows``, and return the cell's rows.

        A cell that several protocols of the same values share keeps the name of the first.
        """
        folder, new = self.context.directory.cell(self.cell), frame(rows)
        kept = folder.rows()
        if not kept.empty:
            new["protocol"] = kept["protocol"].iloc[0]
        kept = kept[~kept["metric"].isin([metric.name for metric in replaced])]
        merged = new if kept.empty else pd.concat([kept, new], ignore_index=True)
        order = {name: i for i, name in enumerate(self.context.metrics[self.cell.kind])}
        merged = merged.sort_values(
            "metric", key=lambda names: names.map(order), kind="stable", ignore_index=True
        )
        folder.write_rows(merged)
        return merged


def _without_home(reason: str | None) -> str | None:
    """Replace the user's home folder by ``~``: rows are published, and the path names a person."""
    home = os.path.join(os.path.expanduser("~"), "")
    return reason.replace(home, "~/") if reason and home != os.sep else reason


def _variant(cell: Cell) -> str | None:
    """Return the dataset's variant: ``subset`` if the protocol uses only a part of the dataset."""
    if cell.info is None:
        return None
    resolved, info = cell.resolved, cell.info
    cut = (resolved.train_images or info.train_size) < info.train_size or (
        resolved.test_images or info.test_size
    ) < info.test_size
    return "subset" if cut and info.variant == COMPLETE else info.variant
