"""The house: few modules at the top, and names that say one thing."""

from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
# A verb of the command line is named as the part that it calls.
SOURCES = [
    path
    for folder in ("bench", "baselines")
    for path in (ROOT / folder).rglob("*.py")
    if path.name not in {"__init__.py", "__main__.py", "_version.py"}
    and path.parent != ROOT / "bench" / "cli"
]


def test_at_most_eight_modules_lie_directly_in_the_harness():
    assert len([path for path in SOURCES if path.parent == ROOT / "bench"]) <= 8


def test_no_file_name_is_used_for_two_things():
    counts = Counter(path.name for path in SOURCES)
    assert [name for name, count in counts.items() if count > 1] == []
