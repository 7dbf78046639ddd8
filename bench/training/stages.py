"""The epochs of each stage of a training."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.model import Stage


@dataclass(frozen=True)
class StageEpochs:
    """The epochs of a stage.

    Attributes:
        name: name of the stage; "" if the training has no stages.
        first: index of its first epoch, from 0.
        end: index of the first epoch after it.
    """

    name: str
    first: int
    end: int


def stage_epochs(stages: Sequence[Stage], epochs: int) -> list[StageEpochs]:
    """Divide the epochs of a training among its stages in proportion to their shares.

    Each stage has at least one epoch. Of fractions, the first stages get the nearest whole number.

    Args:
        stages: stages in order; none for a training without stages.
        epochs: number of epochs, at least the number of stages.

    Raises:
        ValueError: there are fewer epochs than stages.

    >>> halves = (Stage("tokens", 1), Stage("prior", 2))
    >>> [(each.name, each.first, each.end) for each in stage_epochs(halves, 300)]
    [('tokens', 0, 100), ('prior', 100, 300)]
    """
    if not stages:
        return [StageEpochs("", 0, epochs)]
    if epochs < len(stages):
        raise ValueError(f"{len(stages)} stages need {len(stages)} epochs, not {epochs}")
    total = sum(stage.share for stage in stages)
    planned, first, share = [], 0, 0.0
    for i, stage in enumerate(stages):
        share += stage.share
        later = len(stages) - 1 - i
        end = min(max(round(epochs * share / total), first + 1), epochs - later)
        planned.append(StageEpochs(stage.name, first, end))
        first = end
    return planned
