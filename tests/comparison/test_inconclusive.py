"""Few seeds on another processor: a change can be rounding, so it does not count."""

import json
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest
from test_comparison import gate, row, rows, run_directory  # noqa: F401

import bench
from bench.comparison import compare
from bench.store.run_directory import RunDirectory, frame
from bench.system.environment import environment, processor

HERE, THERE = "AMD EPYC, znver4, AVX2", "AMD EPYC, znver4, AVX512"


def verdict(here, reference):
    (found,) = compare(frame(here), frame(reference)).observations.itertuples()
    return found


@pytest.mark.parametrize(
    ("value", "others", "on_one", "on_another"),
    [
        (9.0, {}, "worse", "inconclusive"),
        (0.1, {}, "better", "inconclusive"),
        (9.0, {"higher_is_better": None}, "changed", "inconclusive"),
        (1.0, {}, "same", "same"),
        (1.01, {}, "same", "same"),
        (9.0, {"ci_low": 8.9, "ci_high": 9.1}, "worse", "inconclusive"),
    ],
)
@pytest.mark.parametrize("seeds", [1, 2])
def test_only_what_moved_on_another_processor_is_inconclusive(
    value, others, on_one, on_another, seeds
):
    before = {"ci_low": 0.9, "ci_high": 1.1} if "ci_low" in others else {}
    reference = rows([1.0] * seeds, **{**others, **before}, processor=HERE)
    here = rows([value] * seeds, **others, processor=HERE)
    assert verdict(here, reference).verdict == on_one
    found = verdict([{**known, "processor": THERE} for known in here], reference)
    assert found.verdict == on_another
    if on_another == "inconclusive":
        assert "fewer than 3 seeds of each" in found.reason
        assert f"processor: {HERE} in the reference, {THERE} here" in found.reason


@pytest.mark.parametrize("sides", [(None, HERE), (HERE, None), (None, None)])
def test_an_unknown_processor_is_another(sides):
    here, reference = ([row(value, processor=at)] for value, at in zip((9, 1), sides, strict=True))
    found = verdict(here, reference)
    assert found.verdict == "inconclusive"
    assert "unknown" in found.reason


def test_another_device_is_another_processor():
    here, reference = ([row(v, device=d)] for v, d in ((9.0, "cpu"), (1.0, "cuda H100")))
    found = verdict(here, reference)
    assert found.verdict == "inconclusive"
    assert "device: cuda H100 in the reference, cpu here" in found.reason


def test_three_seeds_decide_on_any_processor():
    reference = rows([1.0, 1.1, 1.2], processor=HERE)
    assert verdict(rows([9.0, 9.1, 9.2], processor=THERE), reference).verdict == "worse"
    fewer = rows([9.0, 9.1], processor=THERE)
    assert verdict(fewer, reference).verdict == "inconclusive"


def test_seeds_are_compared_on_their_own_processors():
    reference = [row(1.0, 0, processor=HERE), row(1.0, 1, processor=THERE)]
    same = [row(9.0, 0, processor=HERE), row(9.0, 1, processor=THERE)]
    swapped = [row(9.0, 0, processor=THERE), row(9.0, 1, processor=HERE)]
    assert verdict(same, reference).verdict == "worse"
    assert verdict(swapped, reference).verdict == "inconclusive"


def test_failures_and_what_cannot_be_compared_stay_what_they_are():
    failed = [row(None, status="failed", reason="no", processor=THERE)]
    assert verdict(failed, [row(1.0, processor=HERE)]).verdict == "worse"
    other = [row(9.0, processor=THERE, n=7)]
    assert verdict(other, [row(1.0, processor=HERE)]).verdict == "incomparable"


@pytest.mark.parametrize("options", [[], ["--strict"], ["--machine"]])
def test_it_does_not_count_and_is_shown(gate, tmp_path, options):  # noqa: F811
    here = [row(9.0, processor=THERE), row(1.0, metric="ssim", processor=THERE)]
    reference = [row(1.0, processor=HERE), row(1.0, metric="ssim", processor=HERE)]
    code, out, _ = gate(here, reference, *options)
    assert code == 0
    assert out.startswith("No regression, but 1 observation is inconclusive.\n")
    assert "Inconclusive" in out
    assert "Observations: 1 same, 1 inconclusive." in out
    code, out, _ = gate(here, reference, "--format", "md", *options)
    assert code == 0
    assert "<summary>Inconclusive: few seeds, and another processor (1)</summary>" in out
    path = tmp_path / "gate.xml"
    assert gate(here, reference, "--format", "junit", "--out", path, *options)[0] == 0
    suite = ElementTree.parse(path).getroot().find("testsuite")
    assert [suite.get(name) for name in ("failures", "errors", "skipped")] == ["0", "0", "1"]
    (skipped,) = suite.iter("skipped")
    assert f"processor: {HERE} in the reference, {THERE} here" in skipped.get("message")


def test_a_regression_among_them_still_counts(gate):  # noqa: F811
    here = [row(9.0, processor=THERE), *rows([9.0] * 3, metric="kid")]
    reference = [row(1.0, processor=HERE), *rows([1.0] * 3, metric="kid")]
    code, out, _ = gate(here, reference)
    assert code == 1
    assert out.startswith("Regression: 1 observation")


def test_rows_of_a_run_name_the_processor(tiny_run):
    assert set(tiny_run[1]["processor"]) == {processor()} == {environment()["processor"]}
    assert processor().count(", ") == 2


def old_run(folder, commands, run_ids, without=("processor",)):
    """A run directory of an earlier release, whose rows have no column of that name."""
    RunDirectory(folder).begin({})
    content = {"schema_version": 2, "commands": commands}
    (folder / "run.json").write_text(json.dumps(content))
    table = frame([row(1.0, seed, run_id=run_id) for seed, run_id in enumerate(run_ids)])
    table.drop(columns=list(without)).to_parquet(folder / "results.parquet", index=False)
    return [None if pd.isna(p) else p for p in bench.load_results(folder)["processor"]]


def command(run_id, name):
    return {"run_id": run_id, "environment": {"processor": name}}


@pytest.mark.parametrize(
    ("commands", "run_ids", "expected"),
    [
        ([command("a", "X"), command("b", "Y")], ["a", "b", "c"], ["X", "Y", None]),
        ([command("a", "X")], [None], ["X"]),
        ([command("a", "X"), command("b", "X")], [None, None], ["X", "X"]),
        ([command("a", "X"), command("b", "Y")], [None], [None]),
        ([command("a", "X"), {"run_id": "b"}], [None], [None]),
        ([{"metrics": {}}], [None], [None]),
        ([7], ["a"], [None]),
        ([], ["a"], [None]),
    ],
)
def test_older_rows_take_the_processor_of_their_command(tmp_path, commands, run_ids, expected):
    assert old_run(tmp_path / "run", commands, run_ids) == expected
