"""Things that the cells of a run share: its context, loaded images, and its table."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from bench.datasets.dataset import Dataset, ImageData
from bench.datasets.dataset_contract import load_images
from bench.metrics.metric import Metric
from bench.plan.cells import Cell
from bench.protocol import Protocol
from bench.store.run_directory import RunDirectory
from bench.store.schema import Kind
from bench.system.paths import Resources
from bench.tracking.cell_trackers import Tracking
from bench.training.checkpoints import Interval

COLLECTING_SHARE = 0.02


@dataclass(frozen=True)
class RunContext:
    """The context of a run, the same for all of its cells.

    Attributes:
        directory: the run directory.
        metrics: metric classes by kind of cell and by name, in the order of the rows.
        asked: names of the metrics that were asked for; the others are not computed.
        run_id: identifier of the command, for the rows.
        resources: data root, weight files and cache folder.
        interval: interval between two checkpoints of a training.
        tracking: trackers that log the trainings.
    """

    directory: RunDirectory
    metrics: Mapping[Kind, Mapping[str, type[Metric]]]
    asked: frozenset[str]
    run_id: str
    resources: Resources
    interval: Interval
    tracking: Tracking


class DataCache:
    """The images that were loaded last. Consecutive cells mostly use the same dataset.

    Args:
        datasets: datasets by name.
    """

    def __init__(self, datasets: Mapping[str, Dataset]) -> None:
        self._datasets = datasets
        self._key: tuple[object, ...] | None = None
        self._images: ImageData | None = None

    def load(self, cell: Cell) -> ImageData:
        """Return the images of a cell's dataset, preprocessed by its protocol.

        Raises:
            DataUnavailableError: if the dataset breaks its contract.
        """
        key = (cell.dataset, *_preprocessing(cell.resolved))
        if self._images is None or key != self._key:
            assert cell.info is not None
            self._images = load_images(self._datasets[cell.dataset], cell.info, cell.resolved)
            self._key = key
        return self._images


class GrowingTable:
    """The run's table, collected from the cells again and again while they are run.

    The more cells there are, the longer a collection takes. It is skipped until collections have
    taken less than ``COLLECTING_SHARE`` of the time.

    Args:
        directory: the run directory.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._due = time.monotonic()

    def update(self) -> None:
        """Collect the rows of all cells, if a collection is due."""
        started = time.monotonic()
        if started >= self._due:
            self._directory.collect()
            ended = time.monotonic()
            self._due = ended + (ended - started) / COLLECTING_SHARE


def _preprocessing(protocol: Protocol) -> tuple[object, ...]:
    """Return the values of a protocol that the loaded images depend on."""
    return (
        protocol.image_size,
        protocol.center_crop,
        protocol.interpolation,
        protocol.train_images,
        protocol.test_images,
        protocol.official_fid_split,
    )
