"""One generic registry: a name maps to a lazy ``"module:attribute"``, filled from entry points."""

import ast
import importlib.util
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from bench.errors import BenchError, UnknownNameError

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """What is known of a plug-in without importing it."""

    name: str
    target: str
    package: str
    summary: str


class Registry(Generic[T]):
    """The plug-ins of one kind, from the entry-point group ``bench.<kind>s``.

    Listing reads only package metadata and source text, so it costs no import; ``load`` imports.
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
        """Every registered name, sorted."""
        return sorted(self._entry_points)

    def __contains__(self, name: str) -> bool:
        return name in self._entry_points

    def entries(self) -> list[Entry]:
        """Every plug-in with where it comes from and its module's first line; imports none."""
        return [self._describe(self._point(name)) for name in self.names()]

    def load(self, name: str) -> T:
        """Import the plug-in called ``name``.

        Raises:
            UnknownNameError: no package registers that name.
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

    def _point(self, name: str) -> EntryPoint:
        if name not in self._entry_points:
            raise UnknownNameError(self.kind, name, self._entry_points)
        points = self._entry_points[name]
        if len(points) > 1:
            packages = ", ".join(sorted(_package(point) for point in points))
            raise BenchError(
                f"The {self.kind} name {name!r} is claimed by several packages ({packages}): "
                "uninstall all but one."
            )
        return points[0]

    def _describe(self, point: EntryPoint) -> Entry:
        return Entry(point.name, point.value, _package(point), _summary(point))


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown package"


def _summary(point: EntryPoint) -> str:
    """First docstring line of what the entry point names, read from source without running it."""
    try:
        spec = importlib.util.find_spec(point.module)
    except ImportError as error:
        return f"cannot be imported: {error}"
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    named = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == point.attr
    ]
    docstring = ast.get_docstring(named[0] if named else tree) or ""
    return docstring.split("\n", 1)[0]


# The element types are the contracts (GenerativeModel, SpikingBackend, Dataset, Metric, Extractor);
# naming them here would import torch.
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
