"""Text that Markdown, HTML and formulas in it leave as it is."""

import re

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~$&])")


def escaped(text: str) -> str:
    """Text in which no character has a meaning, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
