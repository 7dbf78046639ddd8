"""Format numbers, hashes, Markdown text and Markdown tables."""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd

SMALL, LARGE = 1e-3, 1e15
HASH_DIGITS = 12
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_PREFIXES = {1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k"}
# Units that can have a prefix: what is printed, and its size in the unit.
_SCALED_UNITS = {"pJ": ("J", 1e-12), "bytes": ("B", 1.0)}
_SI = {1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k", 1.0: "", 1e-3: "m", 1e-6: "µ", 1e-9: "n"}
_COUNTED = ("parameters", "operations", "updates", "images")
_WORDS = {1e12: "trillion", 1e9: "billion", 1e6: "million", 1e3: "thousand"}
_BACKSLASHED = re.compile(r"([\\`*_\[\]#|~$&])")


def number(value: Any, digits: int = 4) -> str:
    """Return a value with ``digits`` significant digits, and without decimals from 1,000 on.

    Args:
        value: a number; a missing one gives "".
        digits: number of significant digits; one less in scientific notation.

    >>> number(0.123456), number(12345.6), number(370.2, 2), number(0.00012345), number(None)
    ('0.1235', '12,346', '370', '1.23e-04', '')
    """
    if pd.isna(value):
        return ""
    value = float(value)
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if abs(value) < SMALL or abs(value) >= LARGE:
        return f"{value:.{digits - 2}e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:.0f}" if abs(rounded) >= 10**digits else f"{rounded:.{digits}g}"


def compact(value: Any, digits: int = 3) -> str:
    """Return a value as :func:`number` does, with a prefix of the SI from 10,000 on.

    Args:
        value: a number; a missing one gives "".
        digits: number of significant digits.

    >>> compact(27920307), compact(1289), compact(0.0628)
    ('27.9M', '1,289', '0.0628')
    """
    if not pd.isna(value) and math.isfinite(value):
        for size, prefix in _PREFIXES.items():
            if max(10_000, size) <= abs(value) < LARGE:
                return f"{number(value / size, digits)}{prefix}"
    return number(value, digits)


@dataclass(frozen=True)
class Scale:
    """A unit that suits a group of numbers.

    Attributes:
        factor: what the numbers are multiplied by.
        unit: the unit with its prefix; "" for none.
    """

    factor: float
    unit: str


def readable_scale(unit: str, values: Iterable[float]) -> Scale:
    """Return the unit in which the median of some numbers is between 1 and 1,000, if it has one.

    Energies and sizes get a prefix, counts a word. Other units stay.

    Args:
        unit: unit of the numbers; "1" for none.
        values: the numbers; missing ones do not count.

    >>> readable_scale("pJ per image", [25318989.0])
    Scale(factor=1e-06, unit='µJ per image')
    >>> readable_scale("operations per image", [5504128.0]).unit
    'million operations per image'
    >>> readable_scale("dB", [19.0]), readable_scale("1", [0.1])
    (Scale(factor=1.0, unit='dB'), Scale(factor=1.0, unit=''))
    """
    sizes = [abs(v) for v in values if not pd.isna(v) and math.isfinite(v) and v]
    name, _, rest = unit.partition(" ")
    if unit == "1" or not sizes:
        return Scale(1.0, "" if unit == "1" else unit)
    if name in _SCALED_UNITS:
        symbol, size = _SCALED_UNITS[name]
        step, prefix = _fitting(median(sizes) * size, _SI)
        return Scale(float(f"{size / step:.12g}"), f"{prefix}{symbol} {rest}".strip())
    if name in _COUNTED:
        step, word = _fitting(median(sizes), _WORDS | {1.0: ""})
        return Scale(1 / step, f"{word} {unit}".strip())
    return Scale(1.0, unit)


def _fitting(value: float, steps: Mapping[float, str]) -> tuple[float, str]:
    """Return the largest step that does not exceed a value, or the smallest step."""
    return next(
        ((s, name) for s, name in steps.items() if s <= value), (min(steps), steps[min(steps)])
    )


def with_interval(value: Any, low: Any, high: Any) -> str:
    """Return a mean and half the width of its interval, rounded to two digits of that half.

    Args:
        value: the mean.
        low: lower end of the interval.
        high: upper end of the interval. Without an interval, or if both ends are equal, the mean
            stands alone.

    >>> with_interval(0.5, 0.49, 0.51), with_interval(0.5, None, None)
    ('0.500 ± 0.010', '0.5')
    """
    if pd.isna(value) or pd.isna(low) or pd.isna(high) or low == high:
        return number(value)
    half = (float(high) - float(low)) / 2
    if not 0 < half < LARGE or abs(value) >= LARGE:
        return f"{number(value)} ± {number(half)}"
    decimals = max(0, 1 - math.floor(math.log10(half)))
    if decimals > 6:
        return f"{number(value)} ± {half:.1e}"
    return f"{value:,.{decimals}f} ± {half:,.{decimals}f}"


def fixed_point(mean: float, half: float | None = None) -> str:
    """Return a mean with four significant digits and trailing zeros, as papers print numbers.

    Args:
        mean: the mean.
        half: half the width of its interval, rounded to the same decimal place; None for none.

    >>> fixed_point(98.0, 4.968), fixed_point(1334.5), fixed_point(0.0314)
    ('98.00±4.97', '1334', '0.0314')
    """
    magnitude = abs(mean)
    if magnitude and not SMALL <= magnitude < 1e5:
        form = "{:.2e}"
    else:
        digits = 3 - math.floor(math.log10(magnitude)) if magnitude else 3
        form = f"{{:.{min(max(digits, 0), 4)}f}}"
    if half is None:
        return form.format(mean)
    return f"{form.format(mean)}±{form.format(half) if half else 0}"


def duration_seconds(text: str) -> float | None:
    """Parse ``30s``, ``10min`` or ``1.5h`` into seconds; None if the text has another form or is 0.

    >>> duration_seconds("30s"), duration_seconds("1.5h"), duration_seconds("2epochs")
    (30.0, 5400.0, None)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|min|h)", text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    return seconds if seconds > 0 else None


def short_hash(digest: Any) -> str:
    """Return the first digits of a hash.

    >>> short_hash("d092d3460d1a5f")
    'd092d3460d1a'
    """
    return str(digest)[:HASH_DIGITS]


def escape_markdown(text: str) -> str:
    r"""Return text in one line, in which nothing has a meaning in Markdown, HTML or formulas.

    >>> print(escape_markdown("<b>a_b</b> | $x$"))
    &lt;b&gt;a\_b&lt;/b&gt; \| \$x\$
    """
    escaped = _BACKSLASHED.sub(r"\\\1", " ".join(text.split()))
    return escaped.replace("<", "&lt;").replace(">", "&gt;")


def pipe_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Collection[int] = (),
    strong: Collection[tuple[int, int]] = (),
) -> str:
    r"""Return a Markdown table.

    Args:
        headings: heading of each column, unescaped.
        rows: texts of each row, unescaped.
        right: indices of the columns that are aligned to the right.
        strong: row and column of the texts that are emphasised.

    >>> print(pipe_table(["model", "fad"], [["fsvae", "52"]], right=[1]))
    | model | fad |
    | --- | ---: |
    | fsvae | 52 |
    """
    marks = ["---:" if i in right else "---" for i in range(len(headings))]
    head, *body = [list(map(escape_markdown, line)) for line in (headings, *rows)]
    for row, column in strong:
        body[row][column] = f"**{body[row][column]}**"
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, marks, *body))
