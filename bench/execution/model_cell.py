"""The run of a model's cell: build, train, evaluate."""

import dataclasses
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pandas as pd

from bench.datasets.dataset import ImageData
from bench.evaluation.class_labels import labels_for
from bench.evaluation.context import CellContext
from bench.evaluation.evaluator import Evaluator, Selections, metric_scores, selection_scores
from bench.evaluation.finished_samples import FinishedSamples, remove_finished
from bench.evaluation.showcase import example_inputs, grids, main_outputs, save_showcase, showcase
from bench.execution.build import build_model, neuron_implementation
from bench.execution.cell import CellRun
from bench.execution.cell_rows import ScoredWeights
from bench.metrics.metric import Metric
from bench.model import GenerativeModel
from bench.protocol import BEST_TEST_LOSS, Protocol
from bench.recording.training_record import EpochRecord, TrainingRecord
from bench.store.run_directory import CellFolder, Row
from bench.store.schema import TRAINING_FILE
from bench.testing.neuron_verdict import model_verdict
from bench.tracking.cell_trackers import CellTrackers
from bench.tracking.tracker import TrackedCell, flattened
from bench.training.checkpoints import Checkpoints
from bench.training.loop import LAST, BestEpochs, train, warm_up
from bench.training.model_weights import has_weights, read_weights, write_weights
from bench.training.training_log import TrainingLog

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelRun(CellRun):
    """Runs the cell of a model."""

    @property
    def tf32(self) -> bool:
        """True if the protocol says so; metrics and extractors compute in float32 all the same."""
        return self.cell.resolved.precision == "tf32"

    def missing(self) -> list[type[Metric]]:
        """Return the metrics to compute; if the trained weights are lost, all with values as well.

        Raises:
            DamagedFileError: if the rows are damaged.
        """
        missing = super().missing()
        if not missing or self._trained():
            return missing
        undone = self.folder.missing(self.metrics)
        return [m for m in self.metrics if m in self.asked or m not in undone]

    @cached_property
    def trackers(self) -> CellTrackers:
        """The trackers of the cell, which are not begun yet."""
        facts = self._facts()
        del facts["protocol"]
        facts = {name.replace("resolved_", ""): value for name, value in facts.items()}
        cell = TrackedCell(self.cell.key, self.cell.folder, flattened(facts))
        return self.context.tracking.trackers(cell, self.reporter.warned)

    def _run(self, missing: list[type[Metric]], load: Callable[[], ImageData]) -> pd.DataFrame:
        try:
            rows = super()._run(missing, load)
            if self.context.tracking.names and self._trained():
                self.trackers.rows(self._training().images, rows)
            return rows
        finally:
            self.trackers.close()

    def _observe(self, missing: list[type[Metric]], context: CellContext) -> list[Row]:
        evaluator = Evaluator(context)
        image_shape = tuple(context.train_images.shape[1:])
        implementation = neuron_implementation(self.cell, self.device)
        model = build_model(self.cell, image_shape, self.device)
        verdict = model_verdict(model)
        self._write_facts(neuron_implementation=implementation, neuron_verdict=verdict)
        if self._trained():
            self.trackers.begin(self._training().images)
        else:
            self._train(model, evaluator)
        training = self._training()
        shown = showcase(self._with_weights(model, LAST), context)
        save_showcase(shown, self.folder)
        selections = self._selections(missing, model, evaluator, training)
        rows: list[Row] = []
        for label, metrics in self._by_label(missing, training).items():
            epoch = training.selected[label]
            _LOG.info("evaluating the weights of epoch %d (%s)", epoch, label)
            model = self._with_weights(model, label)
            many_steps = model.sampling_network() is not None
            finished = FinishedSamples(self.folder, model) if many_steps else None
            observed = evaluator.evaluate(model, metrics, training, selections, finished)
            weights = ScoredWeights(len(context.train_images), epoch, _selection(label))
            for metric in metrics:
                rows += [self.rows.row(metric, one, weights) for one in observed[metric.name]]
        remove_finished(self.folder)
        self._save_nearest(rows, shown, evaluator.extractors)
        return [{**row, "neuron_verdict": verdict} for row in rows]

    def _selections(
        self,
        missing: Iterable[type[Metric]],
        model: GenerativeModel,
        evaluator: Evaluator,
        training: TrainingRecord,
    ) -> Selections:
        """Score each epoch that was kept by the metrics whose values a missing metric reads."""
        names = {name for metric in missing for name in metric.selections_of}
        compared = [metric for metric in self.metrics if metric.name in names]
        if set(training.selected) == {LAST} or not compared:
            return Selections()
        values: dict[str, dict[str, float]] = {metric.name: {} for metric in compared}
        for label in training.selected:
            scored = [m for m in compared if label in {LAST, BEST_TEST_LOSS, m.name}]
            scores = metric_scores(evaluator, scored, self._with_weights(model, label))
            for name, score in scores.items():
                values[name][_selection(label)] = score.value
        return Selections(values, {m.name: bool(m.higher_is_better) for m in compared})

    def _by_label(
        self, metrics: Iterable[type[Metric]], training: TrainingRecord
    ) -> dict[str, list[type[Metric]]]:
        """Group metrics by the label of the weights that they are computed with."""
        general = evaluated_label(self.cell.resolved)
        groups: dict[str, list[type[Metric]]] = {}
        for metric in metrics:
            label = metric.name if metric.name in training.selected else general
            groups.setdefault(label, []).append(metric)
        return groups

    def _train(self, model: GenerativeModel, evaluator: Evaluator) -> None:
        cell, images = self.cell, evaluator.context.train_images
        best = BestEpochs(selection_scores(evaluator, self.metrics))
        checkpoints = Checkpoints(self.folder, self.context.interval)
        rebuild = partial(build_model, cell, tuple(images.shape[1:]), self.device)
        labels = labels_for(model, evaluator.context.train_labels).values
        warm_up(rebuild(), images, cell.resolved, labels)
        record = train(
            model,
            images,
            cell.resolved,
            seed=cell.seed,
            best=best,
            log=self._log(evaluator.context),
            checkpoints=checkpoints,
            rebuild=rebuild,
            labels=labels,
        )
        for label, weights in best.weights.items():
            write_weights(self.folder, label, weights)
        # Written last: if this file exists, training is complete.
        self._write_json(TRAINING_FILE, dataclasses.asdict(record))
        checkpoints.remove()

    def _log(self, context: CellContext) -> TrainingLog:
        """Return where the training reports to."""
        if not self.context.tracking.names:
            return TrainingLog(self.reporter)
        inputs = grids({"images/inputs": example_inputs(context)})

        def draw(model: GenerativeModel) -> dict[str, np.ndarray]:
            drawn = main_outputs(model, context)
            return grids({f"images/{name}": images for name, images in drawn.items()})

        return TrainingLog(self.reporter, self.trackers, inputs, draw)

    def _trained(self) -> bool:
        """Return True if the record of the training and all weights that it lists exist."""
        return self.folder.exists(TRAINING_FILE) and all(
            has_weights(self.folder, label) for label in self._training().selected
        )

    def _training(self) -> TrainingRecord:
        content = json.loads(self.folder.read(TRAINING_FILE))
        epochs = tuple(EpochRecord(**epoch) for epoch in content.pop("epochs"))
        return TrainingRecord(epochs=epochs, **content)

    def _with_weights(self, model: GenerativeModel, label: str) -> GenerativeModel:
        return with_weights(model, self.folder, label)


def evaluated_label(protocol: Protocol) -> str:
    """Return the label of the weights that most metrics are computed with."""
    return BEST_TEST_LOSS if protocol.epoch_selection == BEST_TEST_LOSS else LAST


def with_weights(model: GenerativeModel, folder: CellFolder, label: str) -> GenerativeModel:
    """Load the weights that a cell kept under a label, and return the model for evaluation.

    Args:
        model: model of the cell.
        folder: folder of the cell.
        label: label of the weights, see ``BestEpochs``.

    Raises:
        DamagedFileError: if the weights were changed after they were written.
    """
    model.load_state_dict(read_weights(folder, label))
    return model.eval()


def _selection(label: str) -> str:
    """Return the epoch selection that keeps weights under a label."""
    return label if label in {LAST, BEST_TEST_LOSS} else "best_per_metric"
