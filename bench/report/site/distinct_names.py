"""Names that are unique on a site, and safe as names of files and of places in a page."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.system.paths import safe_name

LONGEST = 100


def run_names(paths: Sequence[Path]) -> list[str]:
    """Return the name of each run directory, with as many of its parents as tell it apart.

    >>> run_names([Path("/a/smoke"), Path("/b/smoke"), Path("/a/quick")])
    ['a/smoke', 'b/smoke', 'quick']
    """
    parts = [path.resolve().parts[1:] or ("/",) for path in paths]
    lengths = [1] * len(parts)
    while True:
        names = ["/".join(part[-n:]) for part, n in zip(parts, lengths, strict=True)]
        longer = [
            n + 1 if names.count(name) > 1 and n < len(part) else n
            for name, n, part in zip(names, lengths, parts, strict=True)
        ]
        if longer == lengths:
            return names
        lengths = longer


def numbered(names: Iterable[str], form: str = "{} ({})") -> list[str]:
    """Return names of which no two are equal, upper and lower case being the same.

    Args:
        names: names; repeated ones get a number.
        form: how a name and its number are joined.

    >>> numbered(["a", "b", "A", "a"])
    ['a', 'b', 'A (2)', 'a (3)']
    """
    taken: set[str] = set()
    unique = []
    for name in names:
        chosen, count = name, 1
        while chosen.lower() in taken:
            count += 1
            chosen = form.format(name, count)
        taken.add(chosen.lower())
        unique.append(chosen)
    return unique


def file_stems(names: Iterable[str]) -> list[str]:
    """Return a unique name for a file, without its extension, for each name.

    >>> file_stems(["a/smoke fsvae", "../<b>", "A_smoke_fsvae"])
    ['a_smoke_fsvae', '_b_', 'A_smoke_fsvae-2']
    """
    return numbered((safe_name(name)[:LONGEST] or "_" for name in names), "{}-{}")


def fragments(titles: Iterable[str]) -> list[str]:
    """Return a unique identifier, of letters, digits and hyphens, for each title of a page.

    >>> fragments(["digits, protocol smoke", "digits: protocol smoke", "数"])
    ['digits-protocol-smoke', 'digits-protocol-smoke-2', 'tab']
    """
    plain = (re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:LONGEST] for title in titles)
    return numbered((text or "tab" for text in plain), "{}-{}")
