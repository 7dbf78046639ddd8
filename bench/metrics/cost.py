"""Cost of a model: size, speed and memory."""

from collections.abc import Iterable
from statistics import median

from bench.metrics.metric import Batch, Metric, ModelFacts, Observation
from bench.protocol import Protocol
from bench.store.schema import NOT_APPLICABLE, NOT_NEGATIVE, Headline
from bench.system.devices import NO_PEAK_MEMORY

CANNOT_SAMPLE = Observation(None, status=NOT_APPLICABLE, reason="the model cannot sample")


class ParameterCount(Metric):
    """Number of parameters; lower is better."""

    name = "parameter_count"
    group = "cost"
    bounds = NOT_NEGATIVE
    label = "parameters"
    headline = Headline(100, "parameters", None, ("report",))
    unit = "parameters"
    higher_is_better = False
    tolerance = 0.0
    needs = frozenset({"parameters"})

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation."""
        yield Observation(facts.parameter_count)


class Footprint(Metric):
    """Bytes of parameters and buffers (NeuroBench, arXiv:2304.04640); lower is better."""

    name = "footprint"
    group = "cost"
    bounds = NOT_NEGATIVE
    label = "size of weights and buffers"
    unit = "bytes"
    higher_is_better = False
    tolerance = 0.0
    needs = frozenset({"parameters"})

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation."""
        yield Observation(facts.footprint)


class SamplingParameterCount(Metric):
    """Number of parameters of the modules that sampling runs; lower is better.

    Without a discriminator, an encoder, and what else only training or reconstruction needs.
    """

    name = "sampling_parameter_count"
    group = "cost"
    bounds = NOT_NEGATIVE
    label = "parameters that sampling needs"
    unit = "parameters"
    higher_is_better = False
    tolerance = 0.0
    needs = frozenset({"parameters"})

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation."""
        yield CANNOT_SAMPLE if facts.to_sample is None else Observation(facts.to_sample.parameters)


class SamplingFootprint(Metric):
    """Bytes of parameters and buffers of the modules that sampling runs; lower is better."""

    name = "sampling_footprint"
    group = "cost"
    bounds = NOT_NEGATIVE
    label = "size of weights and buffers that sampling needs"
    unit = "bytes"
    higher_is_better = False
    tolerance = 0.0
    needs = frozenset({"parameters"})

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation."""
        yield CANNOT_SAMPLE if facts.to_sample is None else Observation(facts.to_sample.footprint)


class TrainingThroughput(Metric):
    """Training images per second, the median over epochs; higher is better.

    Only training steps are timed, not evaluation and checkpoints.
    """

    name = "training_throughput"
    group = "cost"
    bounds = NOT_NEGATIVE
    label = "training speed"
    headline = Headline(110, "training", "train", ("summary", "report"), "train img/s")
    unit = "images/s"
    higher_is_better = True
    tolerance = 0.3
    reproducible = False
    needs = frozenset({"training"})

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation."""
        epochs = facts.training.epochs
        rates = [epoch.images / epoch.seconds for epoch in epochs]
        n = sum(epoch.images for epoch in epochs)
        yield Observation(median(rates), n=n, split="train")


class NetworkEvaluations(Metric):
    """Evaluations of the network per sample of a model that samples in many steps."""

    name = "network_evaluations"
    group = "cost"
    bounds = NOT_NEGATIVE
    label = "network evaluations per sample"
    unit = "evaluations per image"
    higher_is_better = False
    tolerance = 0.0
    needs = frozenset({"generated", "activity"})

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(protocol)
        self._images = self._evaluations = 0

    def update(self, batch: Batch) -> None:
        """Add one batch of samples; each evaluation is of the whole batch."""
        if batch.split == "generated" and batch.network_evaluations is not None:
            self._images += len(batch.images)
            self._evaluations += batch.network_evaluations * len(batch.images)

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation."""
        if self._images:
            value = self._evaluations / self._images
            yield Observation(value, n=self._images, split="generated")
        else:
            reason = "the model samples in one pass"
            yield Observation(None, status=NOT_APPLICABLE, reason=reason)


class SamplingThroughput(Metric):
    """Generated images per second, the median over timed batches; higher is better.

    One batch is generated before, to warm up.
    """

    name = "sampling_throughput"
    group = "cost"
    bounds = NOT_NEGATIVE
    label = "sampling speed"
    unit = "images/s"
    higher_is_better = True
    tolerance = 0.3
    needs = frozenset({"sampling_time"})
    reproducible = False

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation."""
        assert facts.sampling is not None
        images, seconds = facts.sampling.images, facts.sampling.seconds
        yield Observation(images / median(seconds), n=images * len(seconds), split="generated")


class TrainingGraphReplays(Metric):
    """Share of the training steps that were replayed from a CUDA graph.

    The first steps never are, nor is a smaller last batch. A model that is not captured trains at
    the speed of the host.
    """

    name = "training_graph_replays"
    group = "cost"
    bounds = NOT_NEGATIVE
    label = "CUDA graph replays in training"
    unit = "1"
    higher_is_better = None
    tolerance = 0.3
    reproducible = False
    needs = frozenset({"training"})

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation."""
        training = facts.training
        yield _share("train", training.replayed, training.steps, training.eager)


class SamplingGraphReplays(Metric):
    """Share of the calls timed for the sampling throughput that were replayed from a CUDA graph."""

    name = "sampling_graph_replays"
    group = "cost"
    bounds = NOT_NEGATIVE
    label = "CUDA graph replays in sampling"
    unit = "1"
    higher_is_better = None
    tolerance = 0.3
    needs = frozenset({"sampling_time"})
    reproducible = False

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation."""
        assert facts.sampling is not None
        sampling = facts.sampling
        yield _share("generated", sampling.replayed, len(sampling.seconds), sampling.eager)


def _share(split: str, replayed: int, calls: int, eager: str | None) -> Observation:
    if replayed:
        return Observation(replayed / calls, split=split)
    reason = eager or "no call came after those that are needed to capture a graph"
    return Observation(None, split=split, status="not_applicable", reason=reason)


class PeakMemory(Metric):
    """Peak memory during training, in bytes; lower is better.

    On CUDA the memory that PyTorch allocated on the device; on a CPU the resident set of the whole
    process, interpreter and libraries included.
    """

    name = "peak_memory"
    group = "cost"
    bounds = NOT_NEGATIVE
    label = "peak memory of training"
    unit = "bytes"
    higher_is_better = False
    tolerance = 0.3
    reproducible = False
    needs = frozenset({"training"})

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation."""
        peak = facts.training.peak_memory
        if peak is None:
            yield Observation(None, split="train", status="not_applicable", reason=NO_PEAK_MEMORY)
        else:
            yield Observation(peak, split="train")
