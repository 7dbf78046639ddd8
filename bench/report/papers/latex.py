"""Write a paper's table in LaTeX."""

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
    "†": r"$\dagger$",
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
    """Return a booktabs ``tabular`` with its legend and notes. It compiles where it is pasted."""
    style = shown.cells.map(escape_latex).rename(columns=escape_latex).style.hide(axis="index")
    layout = "".join("r" if name in RIGHT else "l" for name in shown.cells)
    tabular = style.to_latex(hrules=True, column_format=layout)
    notes = [f"{i}: {_note(note)}\\par" for i, note in enumerate(shown.notes, start=1)]
    title = f"% {shown.title}\n% Needs \\usepackage{{booktabs}}.\n"
    legend = f"\\par\\smallskip\\raggedright\\footnotesize {escape_latex(shown.legend)}\\par"
    return "\n".join([f"{title}\\begingroup", tabular.rstrip(), legend, *notes, "\\endgroup", ""])


def escape_latex(text: str) -> str:
    r"""Return text that LaTeX prints unchanged under any font encoding.

    Latin letters with an accent stay. Other characters beyond ASCII become their code points.

    >>> print(escape_latex("50 % of a_b"))
    50 \% of a\_b
    """
    return re.sub(r"[^A-Za-z0-9 ]", lambda match: _character(match[0]), text).replace(
        "--", "-{}-{}"
    )


def _note(note: Note) -> str:
    words = escape_latex(note.text)
    return words if note.command is None else f"{words} \\texttt{{{escape_latex(note.command)}}}"


def _character(character: str) -> str:
    if character in SPECIAL:
        return SPECIAL[character]
    accented = character <= "\xff" and unicodedata.normalize("NFD", character)[0].isascii()
    return character if character.isascii() or accented else rf"{{[}}U+{ord(character):04X}{{]}}"
