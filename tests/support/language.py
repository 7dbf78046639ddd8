"""Checks of the language in docstrings, comments, messages and pages.

``python tests/support/language.py`` prints the number of problems per folder and the share of
tensor functions whose docstring gives a shape.
"""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for folder in ("bench", "baselines", "examples") for path in (ROOT / folder).rglob("*.py")
)
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").glob("*.md"),
        ROOT / "examples" / "README.md",
        ROOT / "reports" / "README.md",
        *(ROOT / "results").rglob("README.md"),
        *(ROOT / "bench").rglob("*.md"),
        *(ROOT / "bench").rglob("*.j2"),
        *(ROOT / "baselines").rglob("*.md"),
    ]
)

_AMOUNTS = (
    "images|samples|pixels|spikes|operations|macs|acs|steps|batches|bytes|kb|mb|gb|seconds|"
    "milliseconds|ms|microseconds|minutes|hours|pj|joules|times"
)
_UNITS = "second|minute|image|sample|pixel|step|time step|batch|layer|neuron|call|cell|row|seed"
# Each pattern with what to write instead.
BANNED = {
    r"whoever": "code that, callers that",
    r"alike": "the same, both, or the repeated phrase",
    r"likewise": "also, or the repeated phrase",
    r"as there": "as in, with the name of the place",
    r"see there": "see, with the name of the place",
    r"anew": "again",
    r"be had": "be available",
    r"need be": "necessary",
    r"told": "given, reported, shown, set",
    r"beside": "next to, with, in addition to",
    r"(?:that|those) of(?! course)": "the noun that it stands for",
    r"a cell's own of": "the cell's",
    r"what is left of it": "the rest",
    rf"(?:{_AMOUNTS}) an? (?:{_UNITS})": "per",
}
_BANNED = {
    re.compile(r"\b" + pattern.replace(" ", r"[\s#]+") + r"\b", re.IGNORECASE): instead
    for pattern, instead in BANNED.items()
}
# A function's summary begins with a verb: one capitalised word that is none of these.
_VERB = re.compile(r"[A-Z][a-z]+(?:-[a-z]+)?(?=[ ,.:]|$)(?! of\b)")
_NO_VERB = re.compile(
    r"What|Which|Whether|Where|When|How|Who|Whose|Why|None|Nothing|No|Not|Never|Always|As|At|By|"
    r"For|From|If|In|Of|On|Only|Once|Per|So|To|Too|Under|With|Within|Without|All|Both|Each|Either|"
    r"Every|Everything|One|Two|Three|Four|First|An?|The|These|This|That|Those|It|Is|Has|Are|Does|"
    r"True|False|Mean|Shape|Title|Text|Room|Output|Fully|Quality|Encoder|Posterior|Prior|Latent|"
    r"\w+[^s]s|\w+ing|(?!Seed|Feed|Embed|Need|Exceed|Proceed)\w+ed"
)
_QUESTION = re.compile(r"(?:What|Which|Whether|Where|When|How|Who|Whose|Why)\b")
_ELLIPTIC = re.compile(r"(?:of|as|whose)\b")
_TENSOR = re.compile(r"\b(?:Tensor|ndarray|NDArray|Features|Pair)\b")
_SHAPE = re.compile(r"``\([^`]*\)``|\bscalar\b")
_ARGS = re.compile(r"^Args:\n((?:[ \t]+.*\n?|\n)*)", re.MULTILINE)
_FIELDS = re.compile(r"^(?:Args|Attributes):\n((?:[ \t]+.*\n?|\n)*)", re.MULTILINE)
_ENTRY = re.compile(r"^    (\*{0,2}\w+)(?: \(.*?\))?:[ \t]*(.*)", re.MULTILINE)
# From this number on, the arguments of a public function are listed.
LISTED_FROM = 3

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef | ast.Module


@dataclass(frozen=True)
class Problem:
    """A place to rewrite.

    Attributes:
        path: file.
        line: line of the place, from 1.
        what: the problem and the remedy.
    """

    path: Path
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.what}"


@dataclass(frozen=True)
class Method:
    """A function with the class that it is defined in, if any, and whether it is public."""

    node: Function
    owner: ast.ClassDef | None
    public: bool


def banned(path: Path) -> list[Problem]:
    """Find banned words in a page, or in a module's strings and comments."""
    texts = _python_texts(path) if path.suffix == ".py" else [(1, path.read_text())]
    return [
        Problem(path, line + text.count("\n", 0, match.start()), f"{match[0]!r}: write {instead}")
        for line, text in texts
        for pattern, instead in _BANNED.items()
        for match in pattern.finditer(text)
    ]


def summaries(path: Path) -> list[Problem]:
    """Find functions' summaries without a verb, and other summaries like "What ..."."""
    problems = []
    for node in ast.walk(_tree(path)):
        if not isinstance(node, Definition) or not (docstring := ast.get_docstring(node)):
            continue
        first = docstring.split(None, 1)[0]
        if isinstance(node, Function) and not _is_property(node):
            verb = _VERB.match(docstring)
            if verb is None or _NO_VERB.fullmatch(verb[0]):
                what = f"begins with {first!r}: expected an imperative verb"
                problems.append(Problem(path, _line(node), what))
        elif _QUESTION.match(docstring):
            what = f"begins with {first!r}: expected a noun that says what it is"
            problems.append(Problem(path, _line(node), what))
    return problems


def elliptic_fields(path: Path) -> list[Problem]:
    """Find descriptions of arguments and attributes that do not stand alone."""
    return [
        Problem(path, _line(node), f"{name}: {text!r} does not stand alone: begin with a noun")
        for node in ast.walk(_tree(path))
        if isinstance(node, Definition)
        for section in _FIELDS.findall(ast.get_docstring(node) or "")
        for name, text in _ENTRY.findall(section)
        if _ELLIPTIC.match(text)
    ]


def arguments(path: Path) -> list[Problem]:
    """Find public functions that do not list their arguments, and lists with other names."""
    problems = []
    for method in _methods(path):
        expected, listed = _argument_names(method), _listed(method.node)
        if listed is None:
            if not method.public or len(expected) < LISTED_FROM or _is_command(method.node):
                continue
            if any(set(expected) <= set(_listed(base) or []) for base in _overridden(method)):
                continue
            what = f"{method.node.name}: no Args section for its {len(expected)} arguments"
            problems.append(Problem(path, method.node.lineno, what))
        elif sorted(listed) != sorted(expected):
            what = f"{method.node.name}: Args lists {listed}, the arguments are {expected}"
            problems.append(Problem(path, method.node.lineno, what))
    return problems


def shapeless(path: Path) -> list[Problem]:
    """Find public tensor functions whose docstring gives no shape such as ``(N, C, H, W)``."""
    return [
        Problem(
            path,
            method.node.lineno,
            f"{method.node.name}: takes or returns a tensor, gives no shape like ``(N, ...)``",
        )
        for method in tensor_functions(path)
        if not _has_shape(method)
    ]


def tensor_functions(path: Path) -> list[Method]:
    """Return the public functions with a tensor or an array in their annotations."""
    return [method for method in _methods(path) if method.public and _takes_tensor(method.node)]


def share_with_shapes() -> tuple[int, int]:
    """Return how many public tensor functions give a shape, and how many there are."""
    methods = [method for path in SOURCES for method in tensor_functions(path)]
    return sum(map(_has_shape, methods)), len(methods)


CHECKS = {
    "banned words": banned,
    "summaries": summaries,
    "elliptic": elliptic_fields,
    "arguments": arguments,
    "shapes": shapeless,
}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _line(node: Definition) -> int:
    return 1 if isinstance(node, ast.Module) else node.lineno


def _python_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each string and each block of comments, with the line that it begins on."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    for line in comments:
        if line - 1 not in comments:
            block = [comments[line]]
            while line + len(block) in comments:
                block.append(comments[line + len(block)])
            yield line, "\n".join(block)


def _methods(path: Path) -> list[Method]:
    """Return the functions of a module and of its classes; none that lie within functions."""

    def within(body: list[ast.stmt], owner: ast.ClassDef | None, public: bool) -> Iterator[Method]:
        for node in body:
            named = public and not getattr(node, "name", "_").startswith("_")
            if isinstance(node, ast.ClassDef):
                yield from within(node.body, node, named)
            elif isinstance(node, Function):
                yield Method(node, owner, named)

    return list(within(_tree(path).body, None, True))


@cache
def _classes() -> dict[str, list[ast.ClassDef]]:
    classes: dict[str, list[ast.ClassDef]] = {}
    for path in SOURCES:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, []).append(node)
    return classes


def _overridden(method: Method) -> list[Function]:
    """Return the methods of the bases, within the project, that a method overrides."""
    waiting = list(method.owner.bases) if method.owner else []
    seen: set[str] = set()
    methods = []
    while waiting:
        base = waiting.pop()
        name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
        if name in seen:
            continue
        seen.add(name)
        for owner in _classes().get(name, []):
            waiting += owner.bases
            methods += [
                node
                for node in owner.body
                if isinstance(node, Function) and node.name == method.node.name
            ]
    return methods


def _argument_names(method: Method) -> list[str]:
    """Return the names of a function's arguments, without ``self`` and ``cls``."""
    given = method.node.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    if method.owner and not any(_is_decorator(d, "staticmethod") for d in _decorators(method.node)):
        names = names[1:]
    names += [argument.arg for argument in given.kwonlyargs]
    return names + [argument.arg for argument in (given.vararg, given.kwarg) if argument]


def _listed(node: Function) -> list[str] | None:
    section = _ARGS.search(ast.get_docstring(node) or "")
    if section is None:
        return None
    return [name.lstrip("*") for name, _ in _ENTRY.findall(section[1])]


def _takes_tensor(node: Function) -> bool:
    given = node.args
    annotated = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    annotations = [argument.annotation for argument in annotated if argument] + [node.returns]
    return any(_TENSOR.search(ast.unparse(a)) for a in annotations if a is not None)


def _has_shape(method: Method) -> bool:
    documented = [method.node, *_overridden(method)]
    return any(_SHAPE.search(ast.get_docstring(node) or "") for node in documented)


def _decorators(node: Function) -> list[str]:
    return [ast.unparse(decorator) for decorator in node.decorator_list]


def _is_decorator(decorator: str, name: str) -> bool:
    return decorator.split("(")[0].split(".")[-1] == name


def _is_property(node: Function) -> bool:
    return any(
        _is_decorator(decorator, name)
        for decorator in _decorators(node)
        for name in ("property", "cached_property", "setter")
    )


def _is_command(node: Function) -> bool:
    """Return True for a click command, whose options have help texts instead."""
    return any(
        _is_decorator(decorator, name)
        for decorator in _decorators(node)
        for name in ("command", "option", "argument", "group")
    )


def _print_report() -> None:
    counts: Counter[tuple[str, str]] = Counter()
    for path in (*SOURCES, *PAGES):
        folder = str(path.parent.relative_to(ROOT))
        for name, check in CHECKS.items():
            if path.suffix == ".py" or check is banned:
                counts[folder, name] += len(check(path))
    width = max(len(folder) for folder, _ in counts)
    print(" " * width, *(f"{name:>12}" for name in CHECKS))
    for folder in sorted({folder for folder, _ in counts}):
        print(f"{folder:{width}}", *(f"{counts[folder, name]:12}" for name in CHECKS))
    given, functions = share_with_shapes()
    print(
        f"\n{given} of {functions} public tensor functions give a shape ({given / functions:.0%})"
    )


if __name__ == "__main__":
    _print_report()
