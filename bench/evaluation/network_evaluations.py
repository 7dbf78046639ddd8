"""Number of evaluations of the network of a sampler that takes many steps."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from bench.system.progress import WorkReporter


class EvaluationCounter:
    """Counts how often each batch of samples evaluates a network, and reports each evaluation.

    Args:
        network: the network; None for a model that samples in one pass, where nothing is counted.
        reporter: receiver of the reports.
        total: number of samples of all batches.

    Attributes:
        evaluations: evaluations in the last batch, without what is replayed from a CUDA graph; 0
            before the first one.
    """

    def __init__(self, network: nn.Module | None, reporter: WorkReporter, total: int) -> None:
        self._network = network
        self._reporter = reporter
        self._total = total
        self._in_first_batch = 0
        self.evaluations = 0

    @contextmanager
    def batch(self, done: int) -> Iterator[None]:
        """Count the evaluations of a batch.

        Args:
            done: number of samples before the batch.
        """
        if self._network is None:
            yield
            return
        self.evaluations = 0

        def count(*_: object) -> None:
            self.evaluations += 1
            self._reporter.evaluated("sampling", done, self._total, self._in_words())

        with self._network.register_forward_hook(count):
            yield
        self._in_first_batch = self._in_first_batch or self.evaluations

    def _in_words(self) -> str:
        """Return the place within the batch, of which the first batch gives the length."""
        of = f"/{self._in_first_batch}" if self._in_first_batch else ""
        return f"step {self.evaluations}{of} of the next samples"
