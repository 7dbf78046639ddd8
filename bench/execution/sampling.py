"""Samples of a trained cell, drawn from its stored weights as its run drew them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import registry
from bench.datasets.dataset import DatasetInfo
from bench.errors import BenchError
from bench.evaluation.class_labels import drawn_labels
from bench.evaluation.passes import check_images
from bench.execution.build import build_model
from bench.execution.model_cell import evaluated_label, with_weights
from bench.plan.cells import Cell, WeightsCell
from bench.protocol import Protocol
from bench.store.run_directory import CellFolder, RunDirectory, load_results
from bench.store.schema import CELL_FILE, EXTERNAL
from bench.system.devices import tf32
from bench.system.random_state import seed_everything
from bench.system.threads import cpu_threads
from bench.training.given_weights import GivenWeights
from bench.training.loop import LAST
from bench.training.model_weights import has_weights


@dataclass(frozen=True)
class TrainedCell:
    """A cell of a run directory, with its weights.

    Attributes:
        cell: the cell.
        folder: its folder.
    """

    cell: Cell
    folder: CellFolder

    @property
    def label(self) -> str:
        """Label of the weights that most metrics were computed with."""
        given = isinstance(self.cell, WeightsCell)
        return LAST if given else evaluated_label(self.cell.resolved)

    def samples(self, n: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield n images in batches ``(B, C, H, W)``, float32 in [-1, 1].

        Each batch comes with its labels ``(B,)`` if the model is class-conditional, else with None.

        They start with the images that the run's metrics have seen, if either number is a multiple
        of the protocol's ``evaluation_batch_size`` or both numbers are the same.

        Args:
            n: number of images.
            device: device to draw on.
        """
        protocol, info, seed = self.cell.resolved, self.cell.info, self.cell.seed
        assert info is not None
        shape = (info.channels, protocol.image_size, protocol.image_size)
        model = build_model(self.cell, shape, device)
        model = with_weights(model, self.folder, self.label)
        size = protocol.evaluation_batch_size
        labels = drawn_labels(model, info.class_counts, n, seed)
        seed_everything(seed)
        generator = torch.Generator(device).manual_seed(seed)
        with torch.no_grad(), tf32(protocol.precision == "tf32"), cpu_threads(protocol.threads):
            for start in range(0, n, size):
                count = min(size, n - start)
                shown = labels.of(start, count)
                images = model.sample(count, generator, **shown)
                check_images(images, (count, *shape), "sample")
                yield images, shown.get("labels")


def trained_cell(run: Path, wanted: Mapping[str, object]) -> TrainedCell:
    """Return the cell of a run directory that has the wanted values.

    Args:
        run: the run directory.
        wanted: values by name: ``model``, ``backend``, ``dataset`` and ``seed``; None for any.

    Raises:
        BenchError: no cell has them, or more than one; or it was not trained to its end, or by
            another version of the code.
    """
    load_results(run)  # Raises if it is no run directory.
    cells = [(facts, folder) for facts, folder in _cells(run) if _fits(facts, wanted)]
    asked = ", ".join(f"{name} {value}" for name, value in wanted.items() if value is not None)
    if not cells:
        have = sorted({_title(facts) for facts, _ in _cells(run)})
        raise BenchError(f"{run} has no trained model with {asked}; it has: {'; '.join(have)}.")
    if len(cells) > 1:
        titles = "; ".join(sorted(_title(facts) for facts, _ in cells))
        raise BenchError(f"{run} has several models with {asked}: say which one: {titles}.")
    facts, folder = cells[0]
    trained = TrainedCell(_cell(facts), folder)
    cell = trained.cell
    known_version = registry.models.load(cell.registered_model).version
    if cell.key != facts["key"] or cell.model_version.partition("+")[0] != known_version:
        raise BenchError(
            f"{_title(facts)} in {run} was made by another version of the suite or of the model: "
            "its samples would differ from the run's."
        )
    if not has_weights(folder, trained.label):
        raise BenchError(f"{_title(facts)} in {run} has no weights: it was not trained to its end.")
    return trained


def _cell(facts: Mapping[str, Any]) -> Cell:
    """Return the cell that has these facts."""
    values = {
        "model": facts["model"],
        "model_version": facts["model_version"],
        "backend": facts["backend"],
        "dataset": facts["dataset"]["name"],
        "info": DatasetInfo(**facts["dataset"]),
        "protocol": Protocol.model_validate(facts["protocol"]),
        "seed": facts["seed"],
    }
    if "weights" not in facts:
        return Cell(**values)
    given = GivenWeights({}, facts["weights"]["source"], facts["weights"]["sha256"])
    return WeightsCell(**values, registered=facts["registered_model"], weights=given)


def _cells(run: Path) -> Iterator[tuple[dict[str, Any], CellFolder]]:
    """Yield the facts and the folder of each model's cell."""
    for folder in RunDirectory(run).cells():
        if folder.exists(CELL_FILE):
            facts = json.loads(folder.read(CELL_FILE))
            if facts["backend"] != EXTERNAL:
                yield facts, folder


def _fits(facts: Mapping[str, Any], wanted: Mapping[str, object]) -> bool:
    known = {**facts, "dataset": facts["dataset"]["name"]}
    return all(value is None or known[name] == value for name, value in wanted.items())


def _title(facts: Mapping[str, Any]) -> str:
    return (
        f"{facts['model']} {facts['backend']} {facts['dataset']['name']} "
        f"{facts['protocol']['name']} seed {facts['seed']}"
    )
