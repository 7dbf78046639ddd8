"""The examples in docstrings give what they say."""

import ast
import doctest
import importlib

import pytest
from language import ROOT, SOURCES

MODULES = [path for path in SOURCES if ">>> " in path.read_text()]


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_examples(path, capsys):
    result = doctest.testmod(importlib.import_module(module_name(path)))
    assert result.failed == 0, capsys.readouterr().out
    assert result.attempted == examples(path), "an object is not found by doctest"


def examples(path):
    """Count the examples in a module's docstrings, without an import."""
    nodes = ast.walk(ast.parse(path.read_text()))
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef
    docstrings = [ast.get_docstring(node) or "" for node in nodes if isinstance(node, kinds)]
    return sum(len(doctest.DocTestParser().get_examples(text)) for text in docstrings)
