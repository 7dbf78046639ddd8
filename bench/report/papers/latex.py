"""A paper's table in LaTeX."""

import re
import unicodedata

from bench.report.papers.paper_view import Note, View

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "±": r"$\pm$",
    '"': r"{\char34}",
    "'": r"{\char39}",
    "`": r"{\char96}",
    "[": r"{[}",
    "]": r"{]}",
    "*": r"{*}",
    "!": r"!{}",
    "?": r"?{}",
    **{character: rf"\{character}" for character in "&%$#_{}"},
}
RIGHT = {"published", "seeds", "ours", "done right", "difference", "relative difference"}


def latex(shown: View) -> str:
    """A booktabs ``tabular``, its legend and notes below; compiles wherever it is pasted."""
    style = shown.cells.map(escape).rename(columns=escape).style.hide(axis="index")
    layout = "".join("r" if name in RIGHT else "l" for name in shown.cells)
    tabular = style.to_latex(hrules=True, column_format=layout)
    notes = [f"{i}: {_note(note)}\\par" for i, note in enumerate(shown.notes, start=1)]
    title = f"% {shown.title}\n% Needs \\usepackage{{booktabs}}.\n"
    legend = f"\\par\\smallskip\\raggedright\\footnotesize {escape(shown.legend)}\\par"
    return "\n".join([f"{title}\\begingroup", tabular.rstrip(), legend, *notes, "\\endgroup", ""])


def escape(text: str) -> str:
    """Text that LaTeX sets as it stands, under any font encoding.

    Latin letters with an accent stay; any other character beyond ASCII becomes its code point.
    """
    return re.sub(r"[^A-Za-z0-9 ]", lambda found: _character(found[0]), text).replace(
        "--", "-{}-{}"
    )


def _note(note: Note) -> str:
    words = escape(note.text)
    return words if note.command is None else f"{words} \\texttt{{{escape(note.command)}}}"


def _character(character: str) -> str:
    if character in SPECIAL:
        return SPECIAL[character]
    accented = character <= "\xff" and unicodedata.normalize("NFD", character)[0].isascii()
    return character if character.isascii() or accented else rf"{{[}}U+{ord(character):04X}{{]}}"
