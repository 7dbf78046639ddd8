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


def fail_for(problems):
    if problems:
        pytest.fail("\n".join(map(str, problems)), pytrace=False)
