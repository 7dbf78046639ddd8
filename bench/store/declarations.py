"""Declarations of metrics, which ``run.json`` carries to the readers of a run."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.errors import BenchError, one_line
from bench.store.schema import RUN_FILE, Headline, View

if TYPE_CHECKING:
    from bench.metrics.metric import Metric

DEFAULT_TOLERANCE = 0.05
METRICS = "metrics"
HEADLINE = "headline"


@dataclass(frozen=True)
class MetricDeclaration:
    """Facts that a metric declares about itself.

    Attributes:
        tolerance: relative change that the gate accepts.
        reproducible: False if the metric measures the machine and so differs from run to run.
        headline: its place among the main numbers of a run; None for other metrics.
    """

    tolerance: float = DEFAULT_TOLERANCE
    reproducible: bool = True
    headline: Headline | None = None


def declaration(metric: "type[Metric]") -> MetricDeclaration:
    """Return what a metric class declares."""
    return MetricDeclaration(metric.tolerance, metric.reproducible, metric.headline)


def record(metrics: "Mapping[str, type[Metric]]") -> dict[str, Any]:
    """Return what metrics declare, as a command of ``run.json`` keeps it under ``metrics``."""
    return {name: asdict(declaration(metric)) for name, metric in metrics.items()}


def declared(run: Path) -> dict[str, MetricDeclaration]:
    """Read what the metrics of a run declared.

    Args:
        run: a run directory. One of an earlier release can lack declarations.

    Returns:
        Declarations by metric name. If several commands declare a metric, the last one counts.

    Raises:
        BenchError: the declarations in ``run.json`` cannot be read.
    """
    return {name: _parsed(run, facts) for name, facts in _facts(run).items()}


def installed(names: Iterable[str]) -> dict[str, MetricDeclaration]:
    """Import the named metrics, as far as they are installed, and return what they declare.

    A metric that cannot be imported or breaks its contract is left out.
    """
    known = [name for name in names if registry.metrics.error(name) is None]
    return {name: declaration(registry.metrics.load(name)) for name in known}


def headlines(run: Path, names: Iterable[str], view: View) -> dict[str, Headline]:
    """Return the headlines that a table or plot shows.

    If ``run.json`` of an earlier release says nothing of a metric's headline, the installed metric
    declares it.

    Args:
        run: a run directory.
        names: names of the run's metrics.
        view: the table or plot.

    Returns:
        Headlines by metric name, in the order in which they are shown.

    Raises:
        BenchError: ``run.json`` or an installed metric cannot be read.
    """
    facts, names = _facts(run), sorted(set(names))
    found = declared(run) | installed(n for n in names if HEADLINE not in facts.get(n, {}))
    main = {name: found[name].headline for name in names if name in found}
    shown = {name: each for name, each in main.items() if each and view in each.views}
    return dict(sorted(shown.items(), key=lambda item: item[1].rank))


def _facts(run: Path) -> dict[str, dict[str, Any]]:
    """Return the declarations of a run as JSON has them, by metric name."""
    facts: dict[str, dict[str, Any]] = {}
    try:
        commands = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))["commands"]
        for command in commands:
            facts |= command.get(METRICS, {})
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(run, error) from error
    return facts


def _parsed(run: Path, facts: Mapping[str, Any]) -> MetricDeclaration:
    try:
        headline = facts.get(HEADLINE)
        if headline:
            headline = Headline(**{**headline, "views": tuple(headline["views"])})
        return MetricDeclaration(**{**facts, HEADLINE: headline})
    except (AttributeError, KeyError, TypeError) as error:
        raise _unreadable(run, error) from error


def _unreadable(run: Path, error: Exception) -> BenchError:
    return BenchError(
        f"What {run / RUN_FILE} says of its metrics cannot be read ({one_line(error)}): use "
        "another run directory."
    )
