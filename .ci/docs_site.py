"""Hooks of the documentation site: links out of ``docs/``, and docstrings as Markdown.

MkDocs calls the functions (``hooks`` in ``mkdocs.yml``), and Griffe the extension.
"""

import logging
import os
import re
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[1]
_LOG = logging.getLogger("mkdocs.hooks.docs_site")
_OUTWARD = re.compile(r"(?<=\]\()(\.\./[^)#\s]*)")
_ROLE = re.compile(r":\w+:`~?\.?([^`]+)`")
_DOCTEST = re.compile(r"(?:^>>> .*\n(?:.+\n?)*)", re.MULTILINE)


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Point links such as ``../bench/model.py`` to the repository.

    A link to a missing file is a warning, with which ``mkdocs build --strict`` fails.

    Args:
        markdown: source of the page.
        page: the page of MkDocs.
        config: configuration of MkDocs, with the address of the repository.
        files: files of the site, unused.
    """

    def address(match: re.Match[str]) -> str:
        path = Path(os.path.normpath(Path(page.file.abs_src_path).parent / match[1]))
        if not path.exists():
            _LOG.warning("%s links to %s, which does not exist", page.file.src_uri, match[1])
        kind = "tree" if path.is_dir() else "blob"
        return f"{config.extra['repository']}/{kind}/main/{path.relative_to(ROOT).as_posix()}"

    return _OUTWARD.sub(address, markdown)


class MarkdownDocstrings(griffe.Extension):
    """Translates roles such as ``:class:`Step``` to code, and marks doctests as such."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Translate the docstring of one object."""
        if obj.docstring:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = _DOCTEST.sub(r"```pycon\n\g<0>\n```\n", text)
