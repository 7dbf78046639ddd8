"""The log of a training: its losses and images, for the progress of its cell and its trackers."""

import gc
import logging
from collections.abc import Callable, Mapping

import numpy as np

from bench.errors import one_line
from bench.model import GenerativeModel
from bench.system.progress import WorkReporter
from bench.system.random_state import preserved_randomness
from bench.tracking.cell_trackers import CellTrackers
from bench.training.losses import MAIN_LOSS

# A tracker gets the losses of about as many batches per epoch.
POINTS_PER_EPOCH = 20
Grids = Mapping[str, np.ndarray]
_LOG = logging.getLogger(__name__)


class TrainingLog:
    """Passes what happens in a training to a progress reporter and to trackers.

    Args:
        reporter: receiver of the progress.
        trackers: trackers of the cell; None to track nothing.
        inputs: images to log where the training begins, see :meth:`Tracker.images`.
        draw: function that draws images of the model after an epoch; None to draw none.
    """

    def __init__(
        self,
        reporter: WorkReporter,
        trackers: CellTrackers | None = None,
        inputs: Grids | None = None,
        draw: Callable[[GenerativeModel], Grids] | None = None,
    ) -> None:
        self._reporter, self._trackers = reporter, trackers
        self._inputs, self._draw = inputs, draw
        self._point = 0
        self._stage = ""

    def began_stage(self, stage: str) -> None:
        """Report that a stage begins, or that a training resumes within it; "" without stages."""
        self._stage = stage
        if stage:
            self._reporter.began_stage(stage)

    def began(self, seen: int, batch: int, batches: int) -> None:
        """Report where the training begins or goes on.

        Args:
            seen: number of training images so far.
            batch: number of batches so far in the epoch.
            batches: number of batches per epoch.
        """
        self._point = batch * POINTS_PER_EPOCH // batches
        if self._trackers:
            # The last batch of an epoch is logged with the epoch, and so again.
            self._trackers.begin(seen - 1 if batch == batches else seen)
            if self._inputs and not seen:
                self._trackers.images(seen, self._inputs)

    def trained_batch(
        self,
        epoch: int,
        epochs: int,
        batch: int,
        batches: int,
        losses: Mapping[str, float],
        *,
        seen: int,
    ) -> None:
        """Report the losses of a batch, the epoch's last one excepted, which trackers get later.

        Args:
            epoch: index of the epoch, from 0.
            epochs: number of epochs.
            batch: index of the batch in the epoch, from 0.
            batches: number of batches per epoch.
            losses: all losses of the batch by name.
            seen: number of training images so far.
        """
        shown = {MAIN_LOSS: losses[MAIN_LOSS]} if MAIN_LOSS in losses else losses
        self._reporter.trained_batch(epoch, epochs, batch, batches, shown)
        point = (batch + 1) * POINTS_PER_EPOCH // batches
        if self._trackers and point > self._point and batch + 1 < batches:
            self._point = point
            self._trackers.scalars(seen, self._named("losses", losses))

    def trained_epoch(
        self,
        epoch: int,
        losses: Mapping[str, float],
        means: Mapping[str, float],
        scores: Mapping[str, float],
        model: GenerativeModel | None,
        *,
        seen: int,
    ) -> None:
        """Give trackers the losses and scores of an epoch, and images of the model after it.

        Args:
            epoch: number of the epoch, from 1.
            losses: losses of its last batch by name.
            means: means of its losses by name.
            scores: scores by which epochs are selected, by name; empty if it was not scored.
            model: model after the epoch, in evaluation mode; None in a stage before the last one,
                whose model is not sampled from.
            seen: number of training images so far.
        """
        self._point = 0
        if not self._trackers:
            return
        values = self._named("losses", losses) | self._named("epoch_losses", means)
        values |= self._named("scores", scores)
        self._trackers.scalars(seen, values | {"epoch": epoch})
        if model is None:
            return
        grids = self._drawn(model)
        if grids:
            self._trackers.images(seen, grids)

    def saving(self) -> None:
        """Report that a checkpoint is about to be saved: what is logged so far must outlive it."""
        if self._trackers:
            self._trackers.flush()

    def _drawn(self, model: GenerativeModel) -> Grids:
        """Draw images of the model; draw no more after an error, which evaluation will report."""
        if self._draw is None:
            return {}
        try:
            with preserved_randomness():
                return self._draw(model)
        except Exception as error:  # models can raise any
            _LOG.exception("no images for the trackers")
            self._reporter.warned(f"no images for the trackers: {one_line(error)}")
            self._draw = None
            return {}
        finally:
            # Garbage would count in the next epoch's peak memory.
            gc.collect()

    def _named(self, group: str, values: Mapping[str, float]) -> dict[str, float]:
        """Return values under names that losses of other stages do not have."""
        place = "/".join(filter(None, [group, self._stage]))
        return {f"{place}/{name}": value for name, value in values.items()}
