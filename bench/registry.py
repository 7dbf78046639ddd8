"""A registry of plug-ins: entry points map each name to a ``"module:attribute"`` to import."""

import inspect
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from bench.errors import BenchError, ContractError, UnknownNameError, one_line
from bench.system.source import class_attribute, summary

SUITE = "spikegen-bench"
# The fastest backend. All compute the same network, so by default a spiking model runs on one.
DEFAULT_BACKEND = "fused"
# What to do where a backend cannot be used. The reference needs PyTorch alone.
OTHER_BACKEND = "choose another backend, for example --backends reference"
T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """A plug-in as its package and source describe it, without importing it.

    Attributes:
        name: registered name.
        target: object to import, as ``"module:attribute"``.
        package: name and version of the package that registers it.
        summary: first line of its docstring.
        external: True if another package than the suite registers it.
    """

    name: str
    target: str
    package: str
    summary: str
    external: bool


class Registry(Generic[T]):
    """The plug-ins of one kind, from the entry-point group ``bench.<kind>s``.

    Only ``load`` and ``error`` import a plug-in. Listing reads package metadata and source text.

    Args:
        kind: what the plug-ins are, in the singular, such as ``model``.
        contract: base class of the plug-ins, as ``"module:attribute"``, which ``load`` imports.
        check: function ``(name, plug-in class)`` that raises a TypeError if the class breaks the
            contract, as ``"module:attribute"``; None if the base class is the whole contract.

    Attributes:
        kind: what the plug-ins are, in the singular, such as ``model``.
        group: name of the entry-point group.
    """

    def __init__(self, kind: str, contract: str, check: str | None = None) -> None:
        self.kind = kind
        self.group = f"bench.{kind}s"
        self._contract, self._check = contract, check

    @cached_property
    def _entry_points(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = defaultdict(list)
        for point in entry_points(group=self.group):
            if point.value not in {other.value for other in found[point.name]}:
                found[point.name].append(point)
        return dict(found)

    def names(self) -> list[str]:
        """Return every registered name, sorted."""
        return sorted(self._entry_points)

    def __contains__(self, name: str) -> bool:
        return name in self._entry_points

    def entries(self) -> list[Entry]:
        """Describe every plug-in, sorted by name, without importing any."""
        return [
            self._describe(points) for points in (self._entry_points[name] for name in self.names())
        ]

    def load(self, name: str) -> T:
        """Import the plug-in called ``name``, and check it against its contract.

        Raises:
            UnknownNameError: no package registers the name.
            ContractError: the plug-in is imported, but breaks its contract.
            BenchError: the plug-in's module cannot be imported, or two packages claim the name.
        """
        point = self._point(name)
        loaded = self._import(point)
        try:
            self._check_contract(name, loaded)
        except TypeError as error:
            raise ContractError(
                f"The {self.kind} {name!r} cannot be used ({point.value}, package "
                f"{_package(point)}): {error}."
            ) from error
        return cast(T, loaded)

    def error(self, name: str) -> str | None:
        """Import the plug-in called ``name``, and return why it cannot be used; None if it can."""
        try:
            self.load(name)
        except BenchError as error:
            return str(error)
        return None

    def attribute(self, name: str, attribute: str) -> Any:
        """Return an attribute of a plug-in's class.

        The plug-in is imported only if its source does not give the value as a literal.

        Raises:
            UnknownNameError: no package registers the name.
            BenchError: the plug-in must be imported and cannot be, or two packages claim the name.
        """
        point = self._point(name)
        try:
            return class_attribute(point.module, point.attr, attribute)
        except LookupError:
            return getattr(self._import(point), attribute)

    def _import(self, point: EntryPoint) -> Any:
        try:
            return point.load()
        except (Exception, SystemExit) as error:  # a script without a main guard can exit
            raise BenchError(
                f"The {self.kind} {point.name!r} cannot be imported from {point.value} "
                f"(package {_package(point)}): {one_line(error)}"
            ) from error

    def _check_contract(self, name: str, loaded: Any) -> None:
        """Check that a plug-in is a class of its contract, with all methods.

        Raises:
            TypeError: it is not.
        """
        contract = _imported(self._contract)
        if not (isinstance(loaded, type) and issubclass(loaded, contract)):
            raise TypeError(
                f"{loaded!r} is not a subclass of {contract.__module__}.{contract.__name__}"
            )
        if self._check is not None:
            check: Callable[[str, type], None] = _imported(self._check)
            check(name, loaded)
        if inspect.isabstract(loaded):
            lacking = ", ".join(sorted(vars(loaded)["__abstractmethods__"]))
            raise TypeError(f"{loaded.__name__} is abstract: it lacks the methods {lacking}")

    def _point(self, name: str) -> EntryPoint:
        if name not in self._entry_points:
            raise UnknownNameError(self.kind, name, self._entry_points)
        points = self._entry_points[name]
        if len(points) > 1:
            packages = ", ".join(sorted(_package(point) for point in points))
            raise BenchError(
                f"The {self.kind} name {name!r} is claimed by several packages ({packages}): "
                "uninstall all but one of them."
            )
        return points[0]

    def _describe(self, points: list[EntryPoint]) -> Entry:
        packages = ", ".join(sorted(map(_package, points)))
        external = any(_distribution(point.dist)[0] != SUITE for point in points)
        point = points[0]
        return Entry(point.name, point.value, packages, summary(point.module, point.attr), external)


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def _package(point: EntryPoint) -> str:
    return " ".join(_distribution(point.dist))


@cache
def _distribution(installed: Distribution | None) -> tuple[str, ...]:
    """Return a distribution's name and version. Without the cache each access parses a file."""
    return (installed.name, installed.version) if installed else ("unknown package",)


# The element types are the contracts, such as GenerativeModel. Naming them here would import torch.
models: Registry[Any] = Registry("model", "bench.model:GenerativeModel", "bench.model:check_class")
backends: Registry[Any] = Registry("backend", "bench.backend:SpikingBackend")
datasets: Registry[Any] = Registry("dataset", "bench.datasets.dataset:Dataset")
metrics: Registry[Any] = Registry(
    "metric", "bench.metrics.metric:Metric", "bench.metrics.metric_contract:check_class"
)
extractors: Registry[Any] = Registry("extractor", "bench.metrics.extractors.extractor:Extractor")
plots: Registry[Any] = Registry(
    "plot", "bench.report.plots.plot:Plot", "bench.report.plots.plot:check_class"
)

trackers: Registry[Any] = Registry("tracker", "bench.tracking.tracker:Tracker")


def registries() -> dict[str, Registry[Any]]:
    """Return every registry of this module by its kind in the plural, such as ``models``."""
    known = [value for value in globals().values() if isinstance(value, Registry)]
    return {each.group.removeprefix("bench."): each for each in known}
