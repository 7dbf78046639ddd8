"""Docstrings, comments, messages and pages are plain, and arguments and shapes are documented.

``python tests/support/language.py`` counts the problems per folder.
"""

import pytest
from language import CHECKS, PAGES, ROOT, SOURCES, banned


def relative(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_source(path):
    fail_for([problem for check in CHECKS.values() for problem in check(path)])


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_page(path):
    fail_for(banned(path))


@pytest.mark.parametrize(
    ("check", "wrong", "right"),
    [
        ("banned words", "# Ended, unless\n# whoever asks", "# Ended, unless the caller asks"),
        ("banned words", "print(f'{n} images a second')", "print(f'{n} images per second')"),
        ("banned words", "print('cannot be\\nhad')", "print('is unavailable')"),
        ("summaries", 'def f():\n    """Whether it is."""', 'def f():\n    """Return True."""'),
        ("summaries", 'def f():\n    """Names of all."""', 'def f():\n    """Name all."""'),
        ("summaries", '"""What is seen."""', '"""Records."""'),
        (
            "elliptic",
            '"""Sum.\n\nArgs:\n    a: of b.\n"""',
            '"""Sum.\n\nArgs:\n    a: size of b.\n"""',
        ),
        ("arguments", "def f(a, b, *, c): ...", "def f(a, b): ..."),
        ("arguments", "class A:\n    def f(self, a, b, c): ...", "def _f(a, b, c): ..."),
        ("arguments", "def f(a, b, c): ...", "@click.command()\ndef f(a, b, c): ..."),
        (
            "arguments",
            'def f(a):\n    """Add.\n\n    Args:\n        b: size.\n    """',
            'def f(a):\n    """Add.\n\n    Args:\n        a: size.\n    """',
        ),
        ("shapes", "def f(a: Tensor | None): ...", 'def f(a: Tensor):\n    """Add ``(N,)``."""'),
        ("shapes", "def f() -> np.ndarray: ...", "def f() -> int: ..."),
    ],
)
def test_checks_find_what_they_look_for(tmp_path, check, wrong, right):
    for name, text in (("wrong.py", wrong), ("right.py", right)):
        (tmp_path / name).write_text(text)
    assert len(CHECKS[check](tmp_path / "wrong.py")) == 1
    assert CHECKS[check](tmp_path / "right.py") == []


def fail_for(problems):
    if problems:
        pytest.fail("\n".join(map(str, problems)), pytrace=False)
