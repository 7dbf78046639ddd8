"""Facts about classes and functions that are read from source text, without importing it."""

import ast
import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any


def summary(module: str, name: str) -> str:
    """Return the first docstring line of a class or function, or else of its module.

    Returns:
        The line; why the module cannot be found; or an empty string if it has no source.
    """
    try:
        tree = _parsed(module)
    except (ImportError, SyntaxError) as error:
        return f"cannot be imported: {error}"
    if tree is None:
        return ""
    docstring = ast.get_docstring(_defined(tree, name) or tree) or ""
    return docstring.split("\n", 1)[0]


def class_attribute(module: str, name: str, attribute: str) -> Any:
    """Return an attribute that a class, or the one base that it has, sets to a literal.

    Args:
        module: module of the class.
        name: name of the class.
        attribute: name of the attribute.

    Raises:
        LookupError: The source is not there, or only running it tells the value.
    """
    try:
        tree = _parsed(module) or ast.Module([], [])
    except (ImportError, SyntaxError) as error:
        raise LookupError(f"no source of {module}") from error
    defined = _defined(tree, name)
    if not isinstance(defined, ast.ClassDef):
        return class_attribute(*_imported(tree, name), attribute)
    for statement in defined.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=target)], value=value)
                | ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value)
            ) if target == attribute:
                return _literal(value)
    match defined.bases:
        case [ast.Name(id=base)]:
            return class_attribute(module, base, attribute)
    raise LookupError(f"{module}.{name} does not set {attribute}")


def _parsed(module: str) -> ast.Module | None:
    """Parse a module; None if it has no Python source.

    Raises:
        ImportError: The package that the module belongs to cannot be imported.
        SyntaxError: The module is not valid Python.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return _parsed_file(spec.origin, os.stat(spec.origin).st_mtime_ns)


@cache
def _parsed_file(path: str, modified: int) -> ast.Module:
    return ast.parse(Path(path).read_text(encoding="utf-8"))


def _defined(tree: ast.Module, name: str) -> ast.ClassDef | ast.FunctionDef | None:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
    return None


def _imported(tree: ast.Module, name: str) -> tuple[str, str]:
    """Return the module that a module imports a name from, and the name there.

    Raises:
        LookupError: There is no such import.
    """
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return node.module, alias.name
    raise LookupError(f"no definition of {name}")


def _literal(value: ast.expr) -> Any:
    try:
        return ast.literal_eval(value)
    except ValueError as error:
        raise LookupError(f"{ast.unparse(value)} is not a literal") from error
