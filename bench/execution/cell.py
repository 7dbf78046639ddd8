"""One cell from start to end: build, train, evaluate, write rows."""

import dataclasses
import json
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from bench import registry
from bench.batches import seed_everything
from bench.datasets.base import ImageData, Split
from bench.devices import describe_device
from bench.errors import one_line
from bench.evaluation import Evaluator, Selections, metric_scores, selection_scores
from bench.files import atomic, write_json
from bench.images import save_grids
from bench.metrics.base import Metric, Observation
from bench.metrics.extractors.base import Extractors, Setting
from bench.model import GenerativeModel
from bench.plan import NO_BACKEND, Cell
from bench.progress import Reporter
from bench.provenance import environment, git_commit, suite_version
from bench.roots import Resources
from bench.store import SCHEMA_VERSION, CellFolder, Row, frame
from bench.training import BEST_TEST_LOSS, LAST, BestEpochs, EpochRecord, TrainingRecord, train

TRAINING_FILE = "training.json"
ERROR_FILE = "error.log"


@dataclass(frozen=True)
class _Scored:
    """Which weights were scored; all None if none were."""

    train_images: int | None = None
    epoch: int | None = None
    epoch_selection: str | None = None


@dataclass(frozen=True)
class CellRun:
    """Runs one cell in this process.

    Attributes:
        cell: what to run.
        folder: where it is kept.
        metrics: classes of the metrics to observe, by name.
        device: where the model lives.
        run_id: of the command, for the rows.
        reporter: is told of the progress.
        resources: where the metrics find weights and keep what they compute once.
    """

    cell: Cell
    folder: CellFolder
    metrics: dict[str, type[Metric]]
    device: torch.device
    run_id: str
    reporter: Reporter
    resources: Resources

    def run(self, load: Callable[[], ImageData]) -> pd.DataFrame:
        """Do what is missing, and return the cell's rows. A failure becomes rows with its reason.

        Args:
            load: gives the cell's images; called only if something is missing.
        """
        missing = self.missing()
        if not missing:
            return self.folder.rows()
        if self.cell.skipped:
            return self._write(missing, self._everywhere(missing, "skipped", self.cell.skipped))
        (self.folder.path / ERROR_FILE).unlink(missing_ok=True)
        started = time.perf_counter()
        try:
            rows = self._observe(missing, load())
        except Exception as error:
            rows = self._everywhere(missing, "failed", one_line(error))
            with atomic(self.folder.path / ERROR_FILE) as file:
                file.write(traceback.format_exc().encode())
        duration = time.perf_counter() - started
        return self._write(missing, [{**row, "duration_s": duration} for row in rows])

    def missing(self) -> list[type[Metric]]:
        """The metrics to observe: without those skipped before that cannot be had now either."""
        skipped = self.folder.skipped()
        return [
            metric
            for metric in self.folder.missing(self.metrics.values())
            if metric.name not in skipped or not self._unavailable(metric)
        ]

    def _unavailable(self, metric: type[Metric]) -> bool:
        extractors = [registry.extractors.load(name) for name in metric.extractors]
        return any(extractor.unavailable(self.resources) for extractor in extractors)

    def _observe(self, missing: list[type[Metric]], data: ImageData) -> list[Row]:
        train_images = torch.from_numpy(data.train.images).to(self.device)
        test_images = torch.from_numpy(data.test.images).to(self.device)
        evaluator = self._evaluator(train_images, test_images, data)
        model = self._build(tuple(train_images.shape[1:]))
        if not (self.folder.path / TRAINING_FILE).exists():
            self._train(model, train_images, evaluator)
        training = self._training()
        save_grids(self._with_weights(model, LAST), evaluator, self.folder.path / "images")
        selections = self._selections(missing, model, evaluator, training)
        rows: list[Row] = []
        for label, metrics in self._by_label(missing, training).items():
            model = self._with_weights(model, label)
            instances = [metric(self.cell.resolved) for metric in metrics]
            observed = evaluator.evaluate(model, instances, training, selections)
            scored = _Scored(len(train_images), training.selected[label], _selection(label))
            for metric in metrics:
                rows += [self._row(metric, found, scored) for found in observed[metric.name]]
        return rows

    def _selections(
        self,
        missing: Iterable[type[Metric]],
        model: GenerativeModel,
        evaluator: Evaluator,
        training: TrainingRecord,
    ) -> Selections:
        """What the selecting metrics say of each epoch that was kept, if a metric asks."""
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
        """Metrics by the label of the weights that they are to see."""
        general = BEST_TEST_LOSS if self.cell.resolved.epoch_selection == BEST_TEST_LOSS else LAST
        groups: dict[str, list[type[Metric]]] = {}
        for metric in metrics:
            label = metric.name if metric.name in training.selected else general
            groups.setdefault(label, []).append(metric)
        return groups

    def _evaluator(self, train_images: Tensor, test_images: Tensor, data: ImageData) -> Evaluator:
        cell, info = self.cell, self.cell.info
        assert info is not None
        extractors = Extractors(
            Setting(
                cell.dataset,
                info.fingerprint,
                cell.resolved,
                cell.seed,
                self.device,
                train_images,
                test_images,
                self.resources,
                self.reporter,
            )
        )
        return Evaluator(
            train_images,
            test_images,
            _labels(data.train),
            _labels(data.test),
            cell.resolved,
            cell.seed,
            extractors,
            self.reporter,
        )

    def _build(self, image_shape: tuple[int, ...]) -> GenerativeModel:
        cell = self.cell
        backend = None if cell.backend == NO_BACKEND else registry.backends.load(cell.backend)
        implementation = backend.implementation(self.device) if backend else None
        write_json(
            self.folder.path / "cell.json",
            {
                "key": cell.key,
                "model": cell.model,
                "model_version": cell.model_version,
                "backend": cell.backend,
                "neuron_implementation": implementation,
                "dataset": dataclasses.asdict(cell.info) if cell.info else None,
                "seed": cell.seed,
                "device": describe_device(self.device),
                "protocol": cell.protocol.model_dump(mode="json"),
                "resolved_protocol": cell.resolved.model_dump(mode="json"),
                "environment": environment(),
            },
        )
        seed_everything(cell.seed)
        model_class = registry.models.load(cell.model)
        model: GenerativeModel = model_class(image_shape, cell.resolved, backend)
        return model.to(self.device)

    def _train(self, model: GenerativeModel, images: Tensor, evaluator: Evaluator) -> None:
        best = BestEpochs(selection_scores(evaluator, self.metrics.values()))
        cell = self.cell
        record = train(model, images, cell.resolved, cell.seed, best, self.reporter)
        for label, weights in best.weights.items():
            with atomic(self._weights_path(label)) as file:
                torch.save(dict(weights), file)
        # Written last: where it stands, training is complete.
        write_json(self.folder.path / TRAINING_FILE, dataclasses.asdict(record))

    def _training(self) -> TrainingRecord:
        content = json.loads((self.folder.path / TRAINING_FILE).read_text(encoding="utf-8"))
        epochs = tuple(EpochRecord(**epoch) for epoch in content.pop("epochs"))
        return TrainingRecord(epochs=epochs, **content)

    def _with_weights(self, model: GenerativeModel, label: str) -> GenerativeModel:
        weights = torch.load(self._weights_path(label), map_location=self.device, weights_only=True)
        model.load_state_dict(weights)
        return model.eval()

    def _weights_path(self, label: str) -> Any:
        return self.folder.path / f"weights-{label}.pt"

    def _everywhere(self, metrics: Iterable[type[Metric]], status: Any, reason: str) -> list[Row]:
        observation = Observation(None, status=status, reason=reason)
        return [self._row(metric, observation, _Scored()) for metric in metrics]

    def _write(self, replaced: list[type[Metric]], rows: list[Row]) -> pd.DataFrame:
        kept = self.folder.rows()
        kept = kept[~kept["metric"].isin([metric.name for metric in replaced])]
        new = frame(rows)
        merged = new if kept.empty else pd.concat([kept, new], ignore_index=True)
        order = {name: i for i, name in enumerate(self.metrics)}
        merged = merged.sort_values(
            "metric", key=lambda names: names.map(order), kind="stable", ignore_index=True
        )
        self.folder.write_rows(merged)
        return merged

    def _row(self, metric: type[Metric], observation: Observation, scored: _Scored) -> Row:
        cell, info = self.cell, self.cell.info
        return {
            **dataclasses.asdict(observation),
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
            "protocol_hash": cell.protocol.hash,
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


def _labels(split: Split) -> Tensor | None:
    return None if split.labels is None else torch.from_numpy(split.labels)


def _selection(label: str) -> str:
    """The epoch selection that keeps weights under a label."""
    return label if label in {LAST, BEST_TEST_LOSS} else "best_per_metric"


def _variant(cell: Cell) -> str | None:
    """The dataset's variant, made ``subset`` where the protocol uses a part of it only."""
    if cell.info is None:
        return None
    resolved, info = cell.resolved, cell.info
    cut = (resolved.train_images or info.train_size) < info.train_size or (
        resolved.test_images or info.test_size
    ) < info.test_size
    return "subset" if cut and info.variant == "complete" else info.variant
