"""Declarations of metrics, which ``run.json`` carries to the readers of a run."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.errors import BenchError, one_line
from bench.store.schema import GROUPS, RUN_FILE, UNBOUNDED, Bounds, Group, Headline, View

if TYPE_CHECKING:
    from bench.metrics.metric import Metric

DEFAULT_TOLERANCE = 0.05
METRICS = "metrics"
HEADLINE, LABEL, BOUNDS = "headline", "label", "bounds"


@dataclass(frozen=True)
class MetricDeclaration:
    """Facts that a metric declares about itself.

    Attributes:
        tolerance: relative change that the gate accepts.
        reproducible: False if the metric measures the machine and so differs from run to run.
        label: its name for people; "" for the registered name with spaces.
        group: its group in reports.
        bounds: smallest and largest possible value; None if there is none.
        headline: its place among the main numbers of a run; None for other metrics.
    """

    tolerance: float = DEFAULT_TOLERANCE
    reproducible: bool = True
    label: str = ""
    group: Group = GROUPS[0]
    bounds: Bounds = UNBOUNDED
    headline: Headline | None = None


def declaration(metric: "type[Metric]") -> MetricDeclaration:
    """Return what a metric class declares."""
    return MetricDeclaration(
        metric.tolerance,
        metric.reproducible,
        label=metric.label,
        group=metric.group,
        bounds=metric.bounds,
        headline=metric.headline,
    )


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


def known_declarations(run: Path, names: Iterable[str]) -> dict[str, MetricDeclaration]:
    """Return what the named metrics declare, as far as anything declares it.

    If ``run.json`` of an earlier release lacks a metric's headline or label, the installed metric
    declares everything.

    Args:
        run: a run directory.
        names: names of metrics.

    Raises:
        BenchError: ``run.json`` or an installed metric cannot be read.
    """
    facts, names = _facts(run), sorted(set(names))
    older = [name for name in names if not {HEADLINE, LABEL} <= facts.get(name, {}).keys()]
    found = declared(run) | installed(older)
    return {name: found[name] for name in names if name in found}


def bounds(run: Path) -> dict[str, Bounds]:
    """Return the smallest and largest possible values that the metrics of a run declared.

    Args:
        run: a run directory; without ``run.json``, no metric has any.

    Raises:
        BenchError: the declarations in ``run.json`` cannot be read.
    """
    if not (run / RUN_FILE).exists():
        return {}
    return {name: each.bounds for name, each in declared(run).items()}


def headlines(run: Path, names: Iterable[str], view: View) -> dict[str, Headline]:
    """Return the headlines that a table or plot shows; see :func:`known_declarations`.

    Args:
        run: a run directory.
        names: names of the run's metrics.
        view: the table or plot.

    Returns:
        Headlines by metric name, in the order in which they are shown.

    Raises:
        BenchError: ``run.json`` or an installed metric cannot be read.
    """
    main = {name: each.headline for name, each in known_declarations(run, names).items()}
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
        bounds = tuple(facts.get(BOUNDS, UNBOUNDED))
        return MetricDeclaration(**{**facts, HEADLINE: headline, BOUNDS: bounds})
    except (AttributeError, KeyError, TypeError) as error:
        raise _unreadable(run, error) from error


def _unreadable(run: Path, error: Exception) -> BenchError:
    return BenchError(
        f"What {run / RUN_FILE} says of its metrics cannot be read ({one_line(error)}): use "
        "another run directory."
    )
