"""A paper's table as text: for the terminal, Markdown, LaTeX, CSV and HTML."""

import re
from html import escape

import pandas as pd

from bench.errors import UnknownNameError
from bench.report.papers.latex import latex
from bench.report.papers.paper_view import Note, View, view
from bench.report.papers.terminal import terminal

CSV = "csv"


def render(table: pd.DataFrame, format: str = "terminal") -> str:
    """A table of :func:`bench.report.papers.paper_table.paper_table` as text.

    Args:
        table: the frame.
        format: one of ``FORMATS``. ``csv`` holds every column of the frame, the others what a
            reader needs, with notes below. ``html`` is a fragment for a page; ``latex`` needs the
            package booktabs and no other; ``terminal`` is as wide as the terminal allows.

    Raises:
        UnknownNameError: no such format.
    """
    if format == CSV:
        return table.to_csv(index=False, lineterminator="\n")
    if format not in _FORMATTERS:
        raise UnknownNameError("format", format, FORMATS)
    return _FORMATTERS[format](view(table))


def markdown(shown: View) -> str:
    """A pipe table with its title above and its notes below, names escaped."""
    cells = [list(shown.cells), *shown.cells.to_numpy().tolist()]
    lines = [f"| {' | '.join(map(_markdown_text, line))} |" for line in cells]
    lines.insert(1, "|" + " --- |" * len(shown.cells.columns))
    notes = [f"{i}. {_markdown_note(note)}" for i, note in enumerate(shown.notes, start=1)]
    parts = [f"**{_markdown_text(shown.title)}**", "\n".join(lines), _markdown_text(shown.legend)]
    return "\n\n".join([*parts, "\n".join(notes)]).rstrip() + "\n"


def html(shown: View) -> str:
    """A ``figure`` that holds the table, with its caption, and the list of its notes, escaped."""
    caption = f"{escape(shown.title)}<br><small>{escape(shown.legend)}</small>"
    style = shown.cells.style.format(escape="html").hide(axis="index").set_caption(caption)
    notes = "".join(f"<li>{_html_note(note)}</li>\n" for note in shown.notes)
    below = f'<ol class="notes">\n{notes}</ol>\n' if notes else ""
    return f'<figure class="paper-table">\n{style.to_html(exclude_styles=True)}{below}</figure>\n'


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|~$&])", r"\\\1", text)


def _markdown_note(note: Note) -> str:
    if note.command is None:
        return _markdown_text(note.text)
    longest = max((len(run) for run in re.findall("`+", note.command)), default=0)
    fence = "`" * (longest + 1)
    return f"{_markdown_text(note.text)} {fence} {note.command} {fence}"


def _html_note(note: Note) -> str:
    words = escape(note.text)
    return words if note.command is None else f"{words} <code>{escape(note.command)}</code>"


_FORMATTERS = {"terminal": terminal, "md": markdown, "latex": latex, "html": html}
FORMATS = (*_FORMATTERS, CSV)
