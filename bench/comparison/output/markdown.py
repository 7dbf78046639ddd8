"""Write a comparison as Markdown, for the comment of a pull request."""

from bench.comparison.compare import Comparison
from bench.comparison.output.sections import Section, counts_line, sections, verdict_line
from bench.system.formatting import escape_markdown, pipe_table

SIGNS = {0: "✅", 1: "❌", 3: "⚠️"}
# Keeps a comment below the length that GitHub accepts.
MOST_LINES = 200
HEADINGS = ("cell", "observation", "reference", "here", "why")
NUMBERS = (2, 3)


def to_markdown(comparison: Comparison, show_all: bool = False) -> str:
    """Return GitHub Markdown: the verdict, then each section, of which only ``Worse`` is unfolded.

    Args:
        comparison: the comparison to write.
        show_all: True to list better, new and same observations too, and all lines of a section
            instead of its first 200.
    """
    parts = [
        f"## {SIGNS[comparison.exit_code]} {verdict_line(comparison)}",
        escape_markdown(counts_line(comparison)),
        *(_section(section, show_all) for section in sections(comparison, show_all)),
        *(f"> {escape_markdown(note)}" for note in comparison.notes),
    ]
    return "\n\n".join(parts) + "\n"


def _section(section: Section, show_all: bool) -> str:
    lines = section.lines if show_all else section.lines[:MOST_LINES]
    rows = [(line.cell, line.observation, line.reference, line.here, line.reason) for line in lines]
    left_out = len(section.lines) - len(lines)
    unfolded = " open" if section.title == "Worse" else ""
    parts = [
        f"<details{unfolded}><summary>{section.title} ({len(section.lines)})</summary>",
        pipe_table(HEADINGS, rows, NUMBERS),
        *([f"{left_out} more lines: `bench compare --all` lists them."] if left_out else []),
        "</details>",
    ]
    return "\n\n".join(parts)
