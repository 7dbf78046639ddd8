"""Text and tables in Markdown."""

import re
from collections.abc import Container

import pandas as pd

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~$&])")


def escaped(text: str) -> str:
    """Text in which no character has a meaning in Markdown, HTML or formulas, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def pipe_table(texts: pd.DataFrame, numbers: Container[str]) -> str:
    """A frame of texts as a table.

    Args:
        texts: what is shown, escaped here.
        numbers: columns that are aligned to the right.
    """
    marks = ["---:" if name in numbers else "---" for name in texts]
    lines = [list(texts), *texts.to_numpy().tolist()]
    head, *body = [f"| {' | '.join(map(escaped, line))} |" for line in lines]
    return "\n".join([head, f"|{'|'.join(marks)}|", *body])
