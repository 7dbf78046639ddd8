"""A comparison as Markdown, for the comment of a pull request."""

import html
import re

from bench.comparison.compare import Comparison
from bench.comparison.output.sections import Line, Section, counts_line, sections, verdict_line

SIGNS = {0: "✅", 1: "❌", 3: "⚠️"}
MOST_LINES = 200


def to_markdown(comparison: Comparison, everything: bool = False) -> str:
    """GitHub's Markdown: the verdict, then each section folded up but for what is worse.

    Args:
        comparison: what to print.
        everything: whether better, new and same observations are listed too, and no section cut
            off after its first 200 lines, which keep a comment below GitHub's limit.
    """
    shown = [section for section in sections(comparison) if section.short or everything]
    parts = [
        f"## {SIGNS[comparison.exit_code]} {verdict_line(comparison)}",
        escape(counts_line(comparison)),
        *(_section(section, everything) for section in shown),
        *(f"> {escape(note)}" for note in comparison.notes),
    ]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text that Markdown and HTML leave as it is, in one line."""
    return re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _section(section: Section, everything: bool) -> str:
    lines = section.lines if everything else section.lines[:MOST_LINES]
    left_out = len(section.lines) - len(lines)
    rows = [_row(line) for line in lines]
    if left_out:
        rows.append(f"\n{left_out} more lines: `bench compare --all` lists them.")
    unfolded = " open" if section.title == "Worse" else ""
    return "\n".join(
        [
            f"<details{unfolded}><summary>{section.title} ({len(section.lines)})</summary>",
            "",
            "| cell | observation | reference | here | why |",
            "|---|---|--:|--:|---|",
            *rows,
            "",
            "</details>",
        ]
    )


def _row(line: Line) -> str:
    cells = (line.cell, line.what, line.reference, line.here, line.reason)
    return f"| {' | '.join(map(escape, cells))} |"
