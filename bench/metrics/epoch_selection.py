"""Gain from selecting an epoch by its score instead of using the last epoch."""

from collections.abc import Iterable

from bench.metrics.metric import Metric, ModelFacts, Observation


class _SelectionGain(Metric):
    """Improvement of a metric over its value at the last epoch; positive is an improvement.

    One observation per selection that training kept under the protocol: ``best_test_loss`` and
    ``best_per_metric``. The latter is scored on the same images that the epoch is selected by.

    ``selections_of`` is the metric alone.
    """

    unit = "1"
    higher_is_better = None
    tolerance = 0.1
    needs = frozenset({"selections"})

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield one observation per selection."""
        (of,) = self.selections_of
        values = facts.selections.get(of, {})
        others = {selection: value for selection, value in values.items() if selection != "last"}
        if "last" not in values or not others:
            yield Observation(None, status="not_applicable", reason=self._reason(of))
            return
        last = values["last"]
        for selection, value in others.items():
            gain = value - last if facts.higher_is_better[of] else last - value
            yield Observation(gain, epoch_selection=selection)

    def _reason(self, of: str) -> str:
        if self.protocol.epoch_selection == "last":
            return "the protocol keeps the last epoch only (epoch_selection)"
        return f"{of} has values under fewer than two selections"


class ReconstructionLossSelectionGain(_SelectionGain):
    """Reduction of ``reconstruction_loss`` by selecting the epoch."""

    name = "reconstruction_loss_selection_gain"
    label = "reconstruction loss, gain from choosing the epoch"
    selections_of = ("reconstruction_loss",)


class FADSelectionGain(_SelectionGain):
    """Reduction of ``fad`` by selecting the epoch."""

    name = "fad_selection_gain"
    label = "FAD, gain from choosing the epoch"
    selections_of = ("fad",)


class FIDSelectionGain(_SelectionGain):
    """Reduction of ``fid`` by selecting the epoch."""

    name = "fid_selection_gain"
    label = "FID, gain from choosing the epoch"
    selections_of = ("fid",)


class InceptionScoreSelectionGain(_SelectionGain):
    """Increase of ``inception_score`` by selecting the epoch."""

    name = "inception_score_selection_gain"
    label = "Inception score, gain from choosing the epoch"
    selections_of = ("inception_score",)
