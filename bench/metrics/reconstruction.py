"""How well test images are reconstructed."""

from collections.abc import Iterable

from bench.metrics.base import Batch, Facts, Metric, Observation
from bench.protocol import Protocol


class ReconstructionLoss(Metric):
    """Mean squared error in [-1, 1] over every test image exactly once."""

    name = "reconstruction_loss"
    unit = "1"
    higher_is_better = False
    tolerance = 0.02
    needs = frozenset({"reconstructions"})
    selects_epochs = True

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._sum = 0.0
        self._n = 0

    def update(self, batch: Batch) -> None:
        """Add each image's squared error, averaged over its values."""
        if batch.split == "test":
            self._sum += sum(_squared_errors(batch))
            self._n += len(batch.images)

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """One observation, over all images."""
        yield Observation(self._sum / self._n, n=self._n, split="test")


class OfficialReconstructionLoss(Metric):
    """Mean of batch means of the squared error, batches cut as in the paper's official code.

    FSVAE's code weighs an incomplete last batch like a full one; ESVAE's leaves it out. Where the
    protocol names no such batching, the metric does not apply.
    """

    name = "reconstruction_loss_official"
    unit = "1"
    higher_is_better = False
    tolerance = 0.02
    needs = frozenset({"reconstructions"})

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._batching = protocol.official_test_batching
        self._sum_of_means = 0.0
        self._batches = 0
        self._n = 0
        self._open_sum = 0.0
        self._open_n = 0

    def update(self, batch: Batch) -> None:
        """Add the images to the official batch that is open, closing it when it is full."""
        if batch.split != "test" or self._batching is None:
            return
        for error in _squared_errors(batch):
            self._open_sum += error
            self._open_n += 1
            if self._open_n == self._batching.size:
                self._close()

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """One observation, over the batches that the official code scores."""
        if self._batching is None:
            reason = "the protocol names no official_test_batching"
            yield Observation(None, split="test", status="not_applicable", reason=reason)
            return
        if self._open_n and not self._batching.drop_last:
            self._close()
        if not self._batches:
            reason = f"fewer than {self._batching.size} test images, so no batch is left"
            yield Observation(None, split="test", status="not_applicable", reason=reason)
            return
        yield Observation(self._sum_of_means / self._batches, n=self._n, split="test")

    def _close(self) -> None:
        self._sum_of_means += self._open_sum / self._open_n
        self._batches += 1
        self._n += self._open_n
        self._open_sum, self._open_n = 0.0, 0


def _squared_errors(batch: Batch) -> list[float]:
    """Each image's squared error, averaged over its values, in float64."""
    assert batch.originals is not None
    difference = batch.images.double() - batch.originals.double()
    return difference.square().flatten(1).mean(1).tolist()
