"""The bounds of dependencies, and the versions that the reference results were made with."""

import ast
import json
import re
import tomllib
from functools import cache
from itertools import chain
from pathlib import Path

import pandas as pd
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench.store.schema import NOT_INSTALLED

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RUNTIME = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
BUILD = [Requirement(text) for text in PYPROJECT["build-system"]["requires"]]
OPTIONAL = {
    extra: [Requirement(text) for text in texts]
    for extra, texts in PYPROJECT["project"]["optional-dependencies"].items()
}
# Documented nowhere as stable, though the names have no underscore.
INTERNAL = ("llvmlite", "numba.core", "torch_fidelity.")


def operators(requirement):
    return {specifier.operator for specifier in requirement.specifier}


@cache
def imported_modules():
    """Dotted names of all modules, and of what is imported from them, in the suite."""
    names = set()
    for folder in ("bench", "baselines"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def uses_internals(requirement):
    package = requirement.name.replace("-", "_")
    return any(
        name.split(".")[0] == package
        and (re.search(r"\._[a-z]", name) or f"{name}.".startswith(INTERNAL))
        for name in imported_modules()
    )


def pinned():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    versions = {}
    for pin in pins:
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert canonicalize_name(pin.name) not in versions
        versions[canonicalize_name(pin.name)] = specifier.version
    return versions


@pytest.mark.parametrize(
    "requirement", [*BUILD, *RUNTIME, *chain(*OPTIONAL.values())], ids=lambda each: each.name
)
def test_every_dependency_has_a_lower_bound(requirement):
    assert ">=" in operators(requirement)


@pytest.mark.parametrize(
    "requirement", [each for each in RUNTIME if uses_internals(each)], ids=lambda each: each.name
)
def test_a_library_of_which_internals_are_imported_has_an_upper_bound(requirement):
    assert "<" in operators(requirement)


def test_internals_are_found_where_they_are_known():
    found = {each.name for each in RUNTIME if uses_internals(each)}
    assert found >= {"llvmlite", "numba", "torch", "torch-fidelity"}
    assert not found & {"click", "numpy", "pandas", "scipy"}


@pytest.mark.parametrize(
    "requirement", [*RUNTIME, *OPTIONAL["efficientnet"]], ids=lambda each: each.name
)
def test_constraints_pin_every_dependency_within_its_bounds(requirement):
    assert requirement.specifier.contains(pinned()[canonicalize_name(requirement.name)])


def test_constraints_fit_any_build_of_pytorch():
    for name, version in pinned().items():
        assert not re.match(r"nvidia-|cuda-|triton", name), name
        assert "+" not in version, name


def test_constraints_are_the_versions_of_the_smoke_reference():
    run = json.loads((ROOT / "results/reference/smoke/run.json").read_text(encoding="utf-8"))
    pins = pinned()
    for command in run["commands"]:
        recorded = {
            canonicalize_name(name): version.partition("+")[0]
            for name, version in command["environment"]["libraries"].items()
        }
        both = recorded.keys() & pins.keys()
        assert len(both) >= 10
        assert {name: pins[name] for name in both} == {name: recorded[name] for name in both}


def test_the_smoke_reference_was_measured_without_optional_packages():
    """A value that a plain installation cannot have would be missing in every run of the gate."""
    rows = pd.read_parquet(ROOT / "results/reference/smoke/results.parquet")
    optional = rows[rows["metric"].str.startswith("efficientnet_")]
    assert len(optional) >= 20
    assert set(optional["status"]) == {NOT_INSTALLED}
