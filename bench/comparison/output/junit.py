"""Write a comparison as JUnit XML, which CI servers show as tests."""

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pandas as pd

from bench.comparison.compare import COMPARED, INCONCLUSIVE, Comparison
from bench.comparison.output.sections import cell_names, observation_name
from bench.system.formatting import number

# Characters that XML 1.0 does not allow.
FORBIDDEN = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
RESULTS = ("failure", "error", "skipped")


def to_junit(comparison: Comparison) -> str:
    """Return one test suite with a test case per cell (all seeds) and metric.

    A regression is a ``failure`` and a missing metric an ``error``; metrics that are inconclusive,
    cannot be compared or do not count are ``skipped``. The message and ``system-out`` list the
    observations.
    """
    names = cell_names(comparison.cells)
    suite = ElementTree.Element("testsuite", name="bench compare")
    cells: Any = comparison.missing_cells.itertuples()
    for row in cells:
        case = _case(suite, names[row.Index], "whole cell")
        ElementTree.SubElement(case, "error", message=_clean(f"cell missing: {row.state}"))
    failing, lacking = set(comparison.regressions.index), set(comparison.missing.index)
    for (pair, metric), rows in _by_metric(comparison).items():
        case = _case(suite, names[pair], metric)
        _outcome(case, rows, failing, lacking)
        output = ElementTree.SubElement(case, "system-out")
        output.text = _clean("\n".join(map(_describe, rows)))
    if not comparison.comparable and comparison.missing_cells.empty and not lacking:
        case = _case(suite, "bench compare", "something to compare")
        ElementTree.SubElement(case, "error", message="nothing comparable")
    _count(suite)
    root = ElementTree.Element("testsuites", dict(suite.attrib))
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, cell: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite, "testcase", classname=_clean(cell), name=_clean(name), time="0"
    )


def _by_metric(comparison: Comparison) -> dict[Any, list[Any]]:
    observations = comparison.observations
    groups: dict[Any, list[Any]] = {}
    for row in observations[observations["verdict"] != "new"].itertuples():
        groups.setdefault((row.pair, row.metric), []).append(row)
    return groups


def _outcome(
    case: ElementTree.Element, rows: list[Any], failing: set[Any], lacking: set[Any]
) -> None:
    """Mark a case by the gravest of its observations; a case without any has no mark."""
    for tag, indices in (("failure", failing), ("error", lacking)):
        chosen = [row for row in rows if row.Index in indices]
        if chosen:
            message = _clean("; ".join(map(_describe, chosen)))
            ElementTree.SubElement(case, tag, message=message, type=chosen[0].verdict)
            return
    unclear = [row for row in rows if row.gates and row.verdict == INCONCLUSIVE]
    if unclear or not any(row.gates and row.verdict in COMPARED for row in rows):
        reasons = "; ".join(dict.fromkeys(row.reason for row in unclear or rows))
        ElementTree.SubElement(case, "skipped", message=_clean(f"not judged: {reasons}"))


def _describe(row: Any) -> str:
    values = f", {number(row.reference)} -> {number(row.here)}" if pd.notna(row.here) else ""
    return f"{observation_name(row)}: {row.verdict}{values}: {row.reason}"


def _clean(text: str) -> str:
    return FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


def _count(suite: ElementTree.Element) -> None:
    suite.set("tests", str(len(suite)))
    for tag, name in zip(RESULTS, ("failures", "errors", "skipped"), strict=True):
        suite.set(name, str(len(suite.findall(f"testcase/{tag}"))))
