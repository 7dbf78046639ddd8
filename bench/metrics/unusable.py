"""Stand-ins for metrics that cannot be imported or break their contract."""

import copyreg
from abc import ABCMeta
from collections.abc import Iterable
from typing import Any, ClassVar, cast

from bench import registry
from bench.errors import BenchError, ContractError, SkippedError
from bench.metrics.metric import Metric, ModelFacts, Observation
from bench.protocol import Protocol


class _Unusable(ABCMeta):
    """Type of the stand-ins, which are pickled by name: another process makes its own."""


class UnusableMetric(Metric, metaclass=_Unusable):
    """A registered metric that cannot be used: its rows say why.

    Attributes:
        error: why it cannot be used.
    """

    unit = "1"
    higher_is_better = None
    tolerance = 0.05
    version = "unknown"
    error: ClassVar[BenchError]

    def __init__(self, protocol: Protocol) -> None:
        """Raise the reason, which ends in the metric's row.

        Raises:
            SkippedError: the metric cannot be imported.
            ContractError: the metric breaks its contract.
        """
        if isinstance(self.error, ContractError):
            raise self.error
        raise SkippedError(str(self.error))

    def compute(self, facts: ModelFacts) -> Iterable[Observation]:
        """Yield nothing: there is no instance to call."""
        return ()


def load_metric(name: str) -> type[Metric]:
    """Return the class of a registered metric, or its stand-in if it cannot be used."""
    try:
        metric: type[Metric] = registry.metrics.load(name)
    except BenchError as error:
        return cast(
            type[Metric],
            _Unusable("UnusableMetric", (UnusableMetric,), {"name": name, "error": error}),
        )
    return metric


def _pickled(metric: Any) -> tuple[Any, ...]:
    return load_metric, (metric.name,)


copyreg.pickle(_Unusable, _pickled)
