"""What choosing an epoch by its score is worth, against taking the last."""

from collections.abc import Iterable
from typing import ClassVar

from bench.metrics.metric import Metric, ModelFacts, Observation


class _SelectionGain(Metric):
    """Improvement of one metric over the last epoch's value; positive is better.

    One observation for each selection that the protocol's training kept: ``best_test_loss``, and
    ``best_per_metric``, which is scored on the very images that it selects by.

    Attributes:
        of: the metric.
    """

    of: ClassVar[str]
    unit = "1"
    higher_is_better = None
    tolerance = 0.1
    needs = frozenset({"selections"})

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """One observation a selection."""
        values = facts.selections.get(self.of, {})
        others = {selection: value for selection, value in values.items() if selection != "last"}
        if "last" not in values or not others:
            yield Observation(None, status="not_applicable", reason=self._reason())
            return
        last = values["last"]
        for selection, value in others.items():
            gain = value - last if facts.higher_is_better[self.of] else last - value
            yield Observation(gain, epoch_selection=selection)

    def _reason(self) -> str:
        if self.protocol.epoch_selection == "last":
            return "the protocol keeps the last epoch only (epoch_selection)"
        return f"{self.of} has no value under two selections"


class ReconstructionLossSelectionGain(_SelectionGain):
    """By how much choosing the epoch lowers the reconstruction loss."""

    name = "reconstruction_loss_selection_gain"
    of = "reconstruction_loss"


class FADSelectionGain(_SelectionGain):
    """By how much choosing the epoch lowers the Fréchet autoencoder distance."""

    name = "fad_selection_gain"
    of = "fad"


class FIDSelectionGain(_SelectionGain):
    """By how much choosing the epoch lowers FID."""

    name = "fid_selection_gain"
    of = "fid"


class InceptionScoreSelectionGain(_SelectionGain):
    """By how much choosing the epoch raises the inception score."""

    name = "inception_score_selection_gain"
    of = "inception_score"
