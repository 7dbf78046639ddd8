"""Write a paper's table for the terminal, and as Markdown, LaTeX, CSV and HTML."""

import re
from html import escape

import pandas as pd

from bench.errors import UnknownNameError
from bench.report.papers.latex import latex
from bench.report.papers.paper_view import Note, View, view
from bench.report.papers.terminal import terminal
from bench.system.formatting import escape_markdown, pipe_table

CSV = "csv"


def render(table: pd.DataFrame, format: str = "terminal") -> str:
    """Return a table of :func:`bench.report.papers.paper_table.paper_table` as text.

    Args:
        table: the frame.
        format: one of ``FORMATS``. ``csv`` has every column of the frame; the others have the
            columns that a reader needs, and notes. ``html`` is a fragment of a page; ``latex``
            needs only the package booktabs; ``terminal`` is as wide as the terminal.

    Raises:
        UnknownNameError: no such format.
    """
    if format == CSV:
        return table.to_csv(index=False, lineterminator="\n")
    if format not in _FORMATTERS:
        raise UnknownNameError("format", format, FORMATS)
    return _FORMATTERS[format](view(table))


def markdown(shown: View) -> str:
    """Return a Markdown table with its title above it and its notes below it."""
    lines = pipe_table(list(map(str, shown.cells)), shown.cells.to_numpy().tolist())
    notes = [f"{i}. {_markdown_note(note)}" for i, note in enumerate(shown.notes, start=1)]
    parts = [f"**{escape_markdown(shown.title)}**", lines, escape_markdown(shown.legend)]
    return "\n\n".join([*parts, "\n".join(notes)]).rstrip() + "\n"


def html(shown: View) -> str:
    """Return a ``figure`` with the table, its caption and the list of its notes."""
    caption = f"{escape(shown.title)}<br><small>{escape(shown.legend)}</small>"
    style = shown.cells.style.format(escape="html").hide(axis="index").set_caption(caption)
    notes = "".join(f"<li>{_html_note(note)}</li>\n" for note in shown.notes)
    below = f'<ol class="notes">\n{notes}</ol>\n' if notes else ""
    return f'<figure class="paper-table">\n{style.to_html(exclude_styles=True)}{below}</figure>\n'


def _markdown_note(note: Note) -> str:
    if note.command is None:
        return escape_markdown(note.text)
    longest = max((len(run) for run in re.findall("`+", note.command)), default=0)
    fence = "`" * (longest + 1)
    return f"{escape_markdown(note.text)} {fence} {note.command} {fence}"


def _html_note(note: Note) -> str:
    words = escape(note.text)
    return words if note.command is None else f"{words} <code>{escape(note.command)}</code>"


_FORMATTERS = {"terminal": terminal, "md": markdown, "latex": latex, "html": html}
FORMATS = (*_FORMATTERS, CSV)
