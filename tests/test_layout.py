"""The house: few modules at the top, and names that say one thing."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A verb of the command line is named as the part that it calls.
SOURCES = [
    path
    for folder in ("bench", "baselines")
    for path in (ROOT / folder).rglob("*.py")
    if path.name not in {"__init__.py", "__main__.py", "_version.py"}
    and path.parent != ROOT / "bench" / "cli"
]

PYTHON = [
    path
    for folder in ("bench", "baselines")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "_version.py"
]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def test_at_most_eight_modules_lie_directly_in_the_harness():
    assert len([path for path in SOURCES if path.parent == ROOT / "bench"]) <= 8


def test_no_file_name_is_used_for_two_things():
    counts = Counter(path.name for path in SOURCES)
    assert [name for name, count in counts.items() if count > 1] == []


@cache
def nodes(path):
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_function_has_at_most_60_lines_and_ten_parameters(path):
    for function in (node for node in nodes(path) if isinstance(node, FUNCTIONS)):
        # A GPU kernel takes each array, stride and size on its own, and documents each.
        if "triton.jit" in map(ast.unparse, function.decorator_list):
            assert function.end_lineno - function.body[0].end_lineno < 60, function.name
            continue
        arguments = function.args
        parameters = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        assert function.end_lineno - function.lineno < 60, function.name
        assert len(parameters) <= 10, function.name


@cache
def own_names():
    """Classes, and functions of a fixed number of arguments, that are defined here."""
    defined = [node for path in PYTHON for node in nodes(path)]
    functions = {d.name for d in defined if isinstance(d, FUNCTIONS) and not d.args.vararg}
    return functions | {d.name for d in defined if isinstance(d, ast.ClassDef)}


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_call_passes_at_most_five_arguments_by_position(path):
    for call in (node for node in nodes(path) if isinstance(node, ast.Call)):
        name = getattr(call.func, "id", getattr(call.func, "attr", None))
        if name in own_names():
            assert len(call.args) <= 5, f"line {call.lineno}: {name}"
