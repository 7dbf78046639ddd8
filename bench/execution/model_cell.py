"""The cell of a model: build, train, evaluate."""

import dataclasses
import io
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.datasets.dataset import ImageData, Split
from bench.evaluation.evaluator import Evaluator, Selections, metric_scores, selection_scores
from bench.evaluation.showcase import save_showcase, showcase
from bench.execution.build import build_model, neuron_implementation
from bench.execution.cell import CellRun
from bench.execution.cell_rows import Scored
from bench.metrics.extractors.extractor import Extractors
from bench.metrics.metric import Metric
from bench.model import GenerativeModel
from bench.recording.training_record import EpochRecord, TrainingRecord
from bench.store.run_directory import Row
from bench.store.schema import CELL_FILE, TRAINING_FILE, weights_file
from bench.system.devices import describe_device
from bench.system.environment import environment
from bench.training.checkpoints import Checkpoints
from bench.training.loop import BEST_TEST_LOSS, LAST, BestEpochs, train, warm_up

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelRun(CellRun):
    """Runs the cell of a model."""

    def missing(self) -> list[type[Metric]]:
        """See the base class; all metrics, if the weights that the rest were observed on are lost.

        Raises:
            DamagedFileError: the rows are damaged.
        """
        missing = super().missing()
        return missing if not missing or self._trained() else list(self.metrics.values())

    def _observe(self, missing: list[type[Metric]], data: ImageData) -> list[Row]:
        train_images = torch.from_numpy(data.train.images).to(self.device)
        test_images = torch.from_numpy(data.test.images).to(self.device)
        evaluator = self._evaluator(train_images, test_images, data)
        model = self._build(tuple(train_images.shape[1:]))
        if not self._trained():
            self._train(model, train_images, evaluator)
        training = self._training()
        save_showcase(showcase(self._with_weights(model, LAST), evaluator), self.folder)
        selections = self._selections(missing, model, evaluator, training)
        rows: list[Row] = []
        for label, metrics in self._by_label(missing, training).items():
            _LOG.info("evaluating the weights of epoch %d (%s)", training.selected[label], label)
            model = self._with_weights(model, label)
            instances = [metric(self.cell.resolved) for metric in metrics]
            observed = evaluator.evaluate(model, instances, training, selections)
            scored = Scored(len(train_images), training.selected[label], _selection(label))
            for metric in metrics:
                rows += [self.rows.row(metric, found, scored) for found in observed[metric.name]]
        return rows

    def _selections(
        self,
        missing: Iterable[type[Metric]],
        model: GenerativeModel,
        evaluator: Evaluator,
        training: TrainingRecord,
    ) -> Selections:
        """Return the values of the selecting metrics at each kept epoch, if a metric needs them."""
        if set(training.selected) == {LAST} or not any("selections" in m.needs for m in missing):
            return Selections()
        selecting = [metric for metric in self.metrics.values() if metric.selects_epochs]
        values: dict[str, dict[str, float]] = {metric.name: {} for metric in selecting}
        for label in training.selected:
            scored = [m for m in selecting if label in {LAST, BEST_TEST_LOSS, m.name}]
            found = metric_scores(evaluator, scored, self._with_weights(model, label))
            for name, score in found.items():
                values[name][_selection(label)] = score.value
        return Selections(values, {m.name: bool(m.higher_is_better) for m in selecting})

    def _by_label(
        self, metrics: Iterable[type[Metric]], training: TrainingRecord
    ) -> dict[str, list[type[Metric]]]:
        """Return the metrics by the label of the weights that they score."""
        general = BEST_TEST_LOSS if self.cell.resolved.epoch_selection == BEST_TEST_LOSS else LAST
        groups: dict[str, list[type[Metric]]] = {}
        for metric in metrics:
            label = metric.name if metric.name in training.selected else general
            groups.setdefault(label, []).append(metric)
        return groups

    def _evaluator(self, train_images: Tensor, test_images: Tensor, data: ImageData) -> Evaluator:
        return Evaluator(
            train_images,
            test_images,
            _labels(data.train),
            _labels(data.test),
            self.cell.resolved,
            self.cell.seed,
            Extractors(self._setting(train_images, test_images)),
            self.reporter,
        )

    def _build(self, image_shape: tuple[int, ...]) -> GenerativeModel:
        cell = self.cell
        self._write_json(
            CELL_FILE,
            {
                "key": cell.key,
                "model": cell.model,
                "model_version": cell.model_version,
                "backend": cell.backend,
                "neuron_implementation": neuron_implementation(cell, self.device),
                "dataset": dataclasses.asdict(cell.info) if cell.info else None,
                "seed": cell.seed,
                "device": describe_device(self.device),
                "protocol": cell.protocol.model_dump(mode="json"),
                "resolved_protocol": cell.resolved.model_dump(mode="json"),
                "environment": environment(),
            },
        )
        return build_model(cell, image_shape, self.device)

    def _train(self, model: GenerativeModel, images: Tensor, evaluator: Evaluator) -> None:
        best = BestEpochs(selection_scores(evaluator, self.metrics.values()))
        cell, checkpoints = self.cell, Checkpoints(self.folder, self.interval)
        warm_up(build_model(cell, tuple(images.shape[1:]), self.device), images, cell.resolved)
        record = train(model, images, cell.resolved, cell.seed, best, self.reporter, checkpoints)
        for label, weights in best.weights.items():
            with self.folder.write(weights_file(label)) as file:
                torch.save(dict(weights), file)
        # Written last: where it stands, training is complete.
        self._write_json(TRAINING_FILE, dataclasses.asdict(record))
        checkpoints.remove()

    def _trained(self) -> bool:
        """Return True if the training record and all its weights are stored."""
        return self.folder.exists(TRAINING_FILE) and all(
            self.folder.exists(weights_file(label)) for label in self._training().selected
        )

    def _training(self) -> TrainingRecord:
        content = json.loads(self.folder.read(TRAINING_FILE))
        epochs = tuple(EpochRecord(**epoch) for epoch in content.pop("epochs"))
        return TrainingRecord(epochs=epochs, **content)

    def _with_weights(self, model: GenerativeModel, label: str) -> GenerativeModel:
        file = io.BytesIO(self.folder.read(weights_file(label)))
        weights = torch.load(file, map_location=self.device, weights_only=True)
        model.load_state_dict(weights)
        return model.eval()

    def _write_json(self, name: str, content: Any) -> None:
        with self.folder.write(name) as file:
            file.write(json.dumps(content, indent=2).encode())


def _labels(split: Split) -> Tensor | None:
    return None if split.labels is None else torch.from_numpy(split.labels)


def _selection(label: str) -> str:
    """Return the epoch selection of a label of weights."""
    return label if label in {LAST, BEST_TEST_LOSS} else "best_per_metric"
