"""A registry of plug-ins: entry points map each name to a ``"module:attribute"`` to import."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from bench.errors import BenchError, UnknownNameError
from bench.system.source import class_attribute, summary

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """A plug-in as its package and source describe it, without importing it.

    Attributes:
        name: registered name.
        target: object to import, as ``"module:attribute"``.
        package: name and version of the package that registers it.
        summary: first line of its docstring.
    """

    name: str
    target: str
    package: str
    summary: str


class Registry(Generic[T]):
    """The plug-ins of one kind, from the entry-point group ``bench.<kind>s``.

    Only ``load`` imports a plug-in. Listing reads package metadata and source text.

    Attributes:
        kind: what the plug-ins are, in the singular, such as ``model``.
        group: name of the entry-point group.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.group = f"bench.{kind}s"

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
        return [self._describe(self._point(name)) for name in self.names()]

    def load(self, name: str) -> T:
        """Import the plug-in called ``name``.

        Raises:
            UnknownNameError: no package registers the name.
            BenchError: the plug-in's module cannot be imported, or two packages claim the name.
        """
        point = self._point(name)
        try:
            return cast(T, point.load())
        except Exception as error:
            raise BenchError(
                f"The {self.kind} {name!r} cannot be imported from {point.value} "
                f"(package {_package(point)}): {type(error).__name__}: {error}"
            ) from error

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
            return getattr(self.load(name), attribute)

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

    def _describe(self, point: EntryPoint) -> Entry:
        return Entry(point.name, point.value, _package(point), summary(point.module, point.attr))


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown package"


# The element types are the contracts, such as GenerativeModel. Naming them here would import torch.
models: Registry[Any] = Registry("model")
backends: Registry[Any] = Registry("backend")
datasets: Registry[Any] = Registry("dataset")
metrics: Registry[Any] = Registry("metric")
extractors: Registry[Any] = Registry("extractor")
plots: Registry[Any] = Registry("plot")


def registries() -> dict[str, Registry[Any]]:
    """Return every registry of this module by its kind in the plural, such as ``models``."""
    known = [value for value in globals().values() if isinstance(value, Registry)]
    return {each.group.removeprefix("bench."): each for each in known}
