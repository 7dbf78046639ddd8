"""Write a comparison as workflow commands, which GitHub Actions shows as annotations."""

from bench.comparison.compare import INCONCLUSIVE, Comparison
from bench.comparison.output.sections import Section, SectionLine, sections, verdict_line

LEVELS = ("error", "warning", "notice")
# GitHub shows so many annotations of each level per step.
MOST_SHOWN = 10
_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _DATA | str.maketrans({":": "%3A", ",": "%2C"})


def to_github(comparison: Comparison) -> str:
    """Return the verdict and at most ten workflow commands of each level.

    A regression is an ``error``, anything missing a ``warning``, and what is incomparable or
    inconclusive a ``notice``. If there are more than ten of a level, the tenth says how many more.
    """
    commands = {level: _commands(comparison, level) for level in LEVELS}
    if not comparison.comparable and not commands["warning"]:
        commands["warning"] = [("Nothing comparable", verdict_line(comparison))]
    lines = [verdict_line(comparison)]
    for level, found in commands.items():
        lines += [command(level, title, text) for title, text in _shortened(found)]
    return "\n".join(lines) + "\n"


def command(level: str, title: str, message: str) -> str:
    """Return a workflow command, escaped as GitHub documents.

    Args:
        level: ``error``, ``warning`` or ``notice``.
        title: title of the annotation.
        message: text of the annotation.

    >>> command("error", "a: 1,2", "50 % of b: c\\nd")
    '::error title=a%3A 1%2C2::50 %25 of b: c%0Ad'
    """
    return f"::{level} title={title.translate(_PROPERTY)}::{message.translate(_DATA)}"


def _commands(comparison: Comparison, level: str) -> list[tuple[str, str]]:
    """Return title and message of each annotation of a level."""
    return [
        (f"{section.title}: {line.cell}", _message(line))
        for section in sections(comparison)
        if _level(section, comparison.strict) == level
        for line in section.lines
    ]


def _level(section: Section, strict: bool) -> str | None:
    match section.verdict:
        case "worse":
            return "error"
        case "changed" if strict:
            return "error"
        case "missing":
            return "warning"
        case "incomparable":
            return "warning" if strict else "notice"
        case verdict if verdict == INCONCLUSIVE:
            return "notice"
    return None


def _message(line: SectionLine) -> str:
    values = f" {line.reference} -> {line.here}," if line.here else ""
    return f"{line.observation}:{values} {line.reason}"


def _shortened(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    if len(found) <= MOST_SHOWN:
        return found
    shown = found[: MOST_SHOWN - 1]
    more = f"{len(found) - len(shown)} more: bench compare without --format lists them."
    return [*shown, ("Not shown", more)]
