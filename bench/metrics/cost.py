"""What a model costs: size, time, memory."""

from collections.abc import Iterable
from statistics import median

from bench.metrics.metric import Facts, Metric, Observation
from bench.store.schema import Headline
from bench.system.devices import NO_PEAK_MEMORY


class ParameterCount(Metric):
    """Number of parameters."""

    name = "parameter_count"
    headline = Headline(100, "parameters", None, ("report",))
    unit = "parameters"
    higher_is_better = False
    tolerance = 0.0

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """One observation."""
        yield Observation(facts.parameter_count)


class Footprint(Metric):
    """Bytes of parameters and buffers (NeuroBench's footprint)."""

    name = "footprint"
    unit = "bytes"
    higher_is_better = False
    tolerance = 0.0

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """One observation."""
        yield Observation(facts.footprint)


class TrainingThroughput(Metric):
    """Training images a second: the median over epochs, evaluation and checkpoints left out."""

    name = "training_throughput"
    headline = Headline(110, "training, images/s", "train", ("summary", "report"), "train img/s")
    unit = "images/s"
    higher_is_better = True
    tolerance = 0.3
    reproducible = False

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """One observation."""
        epochs = facts.training.epochs
        rates = [epoch.images / epoch.seconds for epoch in epochs]
        n = sum(epoch.images for epoch in epochs)
        yield Observation(median(rates), n=n, split="train")


class SamplingThroughput(Metric):
    """Generated images a second: the median over timed batches, after one to warm up."""

    name = "sampling_throughput"
    unit = "images/s"
    higher_is_better = True
    tolerance = 0.3
    needs = frozenset({"sampling_time"})
    reproducible = False

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """One observation."""
        assert facts.sampling is not None
        images, seconds = facts.sampling.images, facts.sampling.seconds
        yield Observation(images / median(seconds), n=images * len(seconds), split="generated")


class PeakMemory(Metric):
    """Largest memory in use during training.

    On CUDA what PyTorch had allocated on the device; on a CPU the resident set of the whole
    process, interpreter and libraries included.
    """

    name = "peak_memory"
    unit = "bytes"
    higher_is_better = False
    tolerance = 0.3
    reproducible = False

    def compute(self, facts: Facts) -> Iterable[Observation]:
        """One observation."""
        peak = facts.training.peak_memory
        if peak is None:
            yield Observation(None, split="train", status="not_applicable", reason=NO_PEAK_MEMORY)
        else:
            yield Observation(peak, split="train")
