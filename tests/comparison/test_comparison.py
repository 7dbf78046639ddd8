import json
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bench
from baselines.ann_vae import ANNVAE
from bench.comparison import Comparison, Policy, compare
from bench.store.declarations import MetricDeclaration
from bench.store.run_directory import RunDirectory, frame

CELL = {"model": "m", "backend": "torch", "dataset": "digits", "protocol": "p"}
FACTS = {"protocol_hash": "a" * 64, "dataset_fingerprint": "f" * 64, "train_images": 64, "n": 24,
         "processor": "one, AVX2"}  # fmt: skip
LOSS = {"metric": "loss", "metric_version": "1", "split": "test", "higher_is_better": False}
POLICY = Policy(
    {"loss": MetricDeclaration(0.02), "speed": MetricDeclaration(0.3, reproducible=False)}
)


def row(value, seed=0, **others):
    facts = {**CELL, **FACTS, **LOSS, "epoch_selection": "last", "status": "ok", "unit": "1"}
    facts |= {"value": value, "seed": seed, "schema_version": 2, **others}
    names = ("model", "model_version", "backend", "dataset", "protocol_hash", "seed")
    return {"cell_key": "/".join(str(facts.get(name)) for name in names), **facts}


def rows(values, **others):
    return [row(value, seed, **others) for seed, value in enumerate(values)]


def judged(here, reference, policy=POLICY):
    return compare(frame(here), frame(reference), policy)


def verdict(here, reference, policy=POLICY):
    (found,) = judged(here, reference, policy).observations.itertuples()
    return found


@pytest.fixture
def run_directory(tmp_path):
    """Write rows as a run directory; gives its folder."""

    def write(name, rows, metrics=None):
        folder = tmp_path / name
        RunDirectory(folder).begin({"metrics": metrics or {}})
        frame(rows).to_parquet(folder / "results.parquet", index=False)
        return folder

    return write


@pytest.fixture
def gate(bench_cli, run_directory):
    """Compare two lists of rows on the command line."""

    def run(here, reference, *options):
        folders = run_directory("here", here), run_directory("reference", reference)
        return bench_cli("compare", *folders, *options)

    return run


# How observations are judged


@pytest.mark.parametrize(
    ("here", "method", "expected"),
    [
        ([2.0, 2.1, 2.2], "seeds", "worse"),
        ([0.5, 0.6, 0.7], "seeds", "better"),
        ([1.1, 1.2, 1.3], "seeds", "same"),
        ([2.0, 2.1], "tolerance", "worse"),
        ([1.0, 1.11], "tolerance", "same"),
    ],
)
def test_samples_over_seeds_decide_where_there_are_three(here, method, expected):
    found = verdict(rows(here), rows([1.0, 1.1, 1.2]))
    assert (found.method, found.verdict) == (method, expected)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(1.3, 1.5, "worse"), (1.15, 1.5, "same"), (0.1, 0.4, "better")],
)
def test_intervals_decide_where_seeds_are_few(low, high, expected):
    here = [row((low + high) / 2, ci_low=low, ci_high=high)]
    found = verdict(here, [row(1.0, ci_low=0.8, ci_high=1.2)])
    assert (found.method, found.verdict) == ("intervals", expected)


@pytest.mark.parametrize(
    ("value", "expected"), [(1.019, "same"), (1.021, "worse"), (0.981, "same"), (0.979, "better")]
)
def test_the_tolerance_decides_where_there_is_nothing_else(value, expected):
    found = verdict([row(value)], [row(1.0)])
    assert (found.method, found.verdict) == ("tolerance", expected)


def test_a_change_within_the_tolerance_is_the_same_however_sure_it_is():
    found = verdict(rows([1.01, 1.010001, 1.010002]), rows([1.0, 1.000001, 1.000002]))
    assert found.verdict == "same"
    assert "+1 %" in found.reason


def test_seeds_without_spread_that_differ_are_no_chance():
    found = verdict(rows([12.0] * 3), rows([10.0] * 3), Policy({"loss": MetricDeclaration(0.0)}))
    assert found.verdict == "worse"


def test_seeds_that_both_have_are_compared_where_they_are_too_few_for_a_test():
    found = verdict([row(1.0, 1)], rows([5.0, 1.0, 9.0]))
    assert (found.verdict, found.reference) == ("same", 1.0)


def test_other_and_few_seeds_are_not_comparable():
    comparison = judged([row(5.0, 7)], [row(1.0, 0)])
    (found,) = comparison.observations.itertuples()
    assert found.verdict == "incomparable"
    assert "seed: 0 in the reference, 7 here" in found.reason
    assert comparison.exit_code == 3


def test_the_direction_of_the_metric_decides_what_is_better():
    assert verdict([row(2.0)], [row(1.0)]).verdict == "worse"
    upwards = [row(value, higher_is_better=True) for value in (2.0, 1.0)]
    assert verdict(upwards[:1], upwards[1:]).verdict == "better"


def test_a_change_without_a_direction_is_told_and_counts_only_under_strict(gate):
    here, reference = ([row(value, higher_is_better=None)] for value in (2.0, 1.0))
    code, out, _ = gate(here, reference)
    assert code == 0
    assert "Changed, with no better or worse" in out
    assert gate(here, reference, "--strict")[0] == 1


@pytest.mark.parametrize(
    ("option", "facts"),
    [("--strict", {"layer": "encoder.conv1"}), ("--strict", {"time_step": 3}), ("--machine", None)],
)
def test_layers_time_steps_and_the_machine_count_only_when_asked_for(
    gate, run_directory, option, facts
):
    name = "loss" if facts else "sampling_throughput"
    here = [row(1.0), row(9.0, metric=name, **(facts or {"higher_is_better": False, "n": 8}))]
    reference = [row(1.0), row(1.0, metric=name, **(facts or {"higher_is_better": False, "n": 8}))]
    assert gate(here, reference)[0] == 0
    assert gate(here, reference, option)[0] == 1


@pytest.mark.parametrize(
    ("field", "reference", "here"),
    [
        ("protocol_hash", "b" * 64, "c" * 64),
        ("n", 5000, 100),
        ("extractor", "Inception", "EfficientNet"),
        ("extractor_sha256", "d" * 64, "e" * 64),
        ("dataset_fingerprint", "d" * 64, "e" * 64),
        ("metric_version", "1", "2"),
        ("train_images", 64, 1437),
        ("unit", "pJ per image", "nJ per image"),
    ],
)
def test_what_is_not_comparable_is_said_with_both_values(gate, field, reference, here):
    other = {"metric": "other"} if field != "protocol_hash" else {}
    sides = ([row(1.0, **other, **{field: value})] for value in (here, reference))
    code, out, _ = gate(*sides)
    assert code == 3
    line = next(line for line in out.splitlines() if f"{field}:" in line)
    assert str(reference)[:12] in line
    assert str(here)[:12] in line


def test_one_incomparable_metric_among_others_is_told_and_counts_only_under_strict(gate):
    here, reference = ([row(1.0), row(9.0, metric="fid", n=n)] for n in (100, 5000))
    code, out, _ = gate(here, reference)
    assert code == 0
    assert "n: 5000 in the reference, 100 here" in out
    assert gate(here, reference, "--strict")[0] == 3


def test_metrics_of_the_machine_are_not_compared_between_devices():
    sides = ([row(9.0, metric="speed", device=device)] for device in ("cpu", "cuda:0"))
    assert "device: cuda:0 in the reference, cpu here" in verdict(*sides).reason


# What is missing, failed or new


def test_a_metric_that_fails_here_is_worse(gate):
    failed = row(None, metric="fid", status="failed", reason="ValueError: no", split=None)
    code, out, _ = gate([row(1.0), failed], [row(1.0), row(3.0, metric="fid", n=9)])
    assert code == 1
    assert "failed: ValueError: no" in out


def test_one_failed_seed_of_three_is_worse_though_the_others_are_the_same():
    here = [row(1.0, 0), row(1.0, 1), row(None, 2, status="failed", reason="no")]
    assert verdict(here, rows([1.0] * 3)).verdict == "worse"
    assert judged(here, here).exit_code == 0


def test_a_metric_skipped_here_is_missing_and_regressions_win(gate):
    skipped = row(None, metric="fid", status="skipped", reason="no weights", split=None)
    fid = row(3.0, metric="fid")
    code, out, _ = gate([row(1.0), skipped], [row(1.0), fid])
    assert code == 3
    assert "skipped: no weights" in out
    assert gate([row(9.0), skipped], [row(1.0), fid])[0] == 1


def test_what_the_reference_could_not_measure_is_not_missed():
    skipped = row(None, metric="fid", status="skipped", reason="no weights", split=None)
    assert judged([row(1.0), skipped], [row(1.0), skipped]).exit_code == 0
    found = judged([row(1.0), row(3.0, metric="fid")], [row(1.0), skipped])
    assert found.exit_code == 0
    assert set(found.observations["verdict"]) == {"same", "new"}


def test_cells_of_the_reference_that_are_missing_and_new_ones_are_told(gate):
    here, reference = ([row(1.0), row(1.0, model=name)] for name in ("esvae", "fsvae"))
    code, out, _ = gate(here, reference, "--all")
    assert code == 3
    assert out.startswith("Incomplete: no regression in what was compared, but 1 cell is missing.")
    missing, new = out.split("Missing")[1].split("New")
    assert "fsvae" in missing
    assert "esvae" in new


def test_fewer_seeds_than_the_reference_are_missing_cells():
    assert judged(rows([1.0, 1.0]), rows([1.0, 1.0, 1.0])).exit_code == 3
    assert judged(rows([1.0] * 4), rows([1.0] * 3)).exit_code == 0


def test_other_protocols_in_the_same_directory_do_not_matter():
    other = row(50.0, protocol="q", protocol_hash="b" * 64)
    comparison = judged([row(1.0), other], [row(1.0)])
    assert comparison.exit_code == 0
    assert list(comparison.observations["verdict"]) == ["same"]


def test_of_two_versions_of_a_model_in_a_directory_the_newest_counts():
    old = row(9.0, model_version="1", created_at="2026-01-01T00:00:00+00:00")
    new = row(1.0, model_version="2", created_at="2026-02-01T00:00:00+00:00")
    assert verdict([new, old], [row(1.0)]).verdict == "same"


@pytest.mark.parametrize("empty", [(0,), (1,), (0, 1)])
def test_an_empty_run_is_nothing_comparable(gate, empty):
    sides = [[] if side in empty else [row(1.0)] for side in (0, 1)]
    code, out, err = gate(*sides)
    assert (code, err) == (3, "")
    assert out.startswith("Nothing comparable: ")
    assert "has no rows" in out


def test_two_runs_in_which_every_model_failed_are_not_comparable(gate):
    extractor = row(1.0, model="fad_autoencoder", kind="extractor")
    failed = row(None, status="failed", reason="ValueError: odd", kind="model")
    both = [extractor, failed], [extractor, failed]
    for options in ((), ("--all",), ("--format", "md")):
        code, out, _ = gate(*both, *options)
        assert code == 3
        assert "Nothing comparable: no model has a value on either side" in out
        assert "No regression" not in out
    code, out, _ = gate(*both, "--format", "junit")
    assert code == 3
    assert ElementTree.fromstring(out).get("errors") == "1"
    assert gate([extractor, row(1.0, kind="model")], [extractor, row(1.0, kind="model")])[0] == 0


def test_a_run_with_failures_only(gate):
    failed = [row(None, status="failed", reason="no", split=None, train_images=None)]
    assert gate(failed, [row(1.0)])[0] == 1
    assert gate([row(1.0)], failed)[0] == 3
    assert gate(failed, failed)[0] == 3


def test_a_metric_that_nobody_knows_is_judged_by_the_default(gate):
    code, out, _ = gate([row(1.04)], [row(1.0)])
    assert code == 0
    assert "default tolerance of 5 %: loss" in out
    assert gate([row(1.06)], [row(1.0)])[0] == 1


def test_the_run_says_how_much_its_metrics_may_change(bench_cli, run_directory):
    gauges = {"loss": {"tolerance": 0.5, "reproducible": True}}
    folders = run_directory("here", [row(1.4)], gauges), run_directory("reference", [row(1.0)])
    code, out, _ = bench_cli("compare", *folders)
    assert (code, "Note" in out) == (0, False)


# The statistics


def simulated(generator, observations, seeds, shift=0.0, shifted=0):
    """Values of as many observations over seeds; the first ``shifted`` of them by so many sigma."""
    values = generator.normal(10.0, 1.0, (observations, seeds))
    values[:shifted] += shift
    return [
        row(value, seed, metric=f"m{i}")
        for i, line in enumerate(values)
        for seed, value in enumerate(line)
    ]


EXACT = Policy({f"m{i}": MetricDeclaration(0.0) for i in range(100)})


@pytest.mark.parametrize("seeds", [3, 5])
def test_gates_of_runs_that_only_chance_tells_apart_seldom_fail(seeds):
    generator = np.random.default_rng(0)
    failed = sum(
        judged(*(simulated(generator, 40, seeds) for _ in "ab"), EXACT).exit_code == 1
        for _ in range(15)
    )
    # 2.5 % of gates are expected to; without the correction 40 metrics would fail 60 % of them.
    assert failed <= 3


@pytest.mark.parametrize(("seeds", "sigmas"), [(3, 15), (5, 7), (10, 4)])
def test_a_shift_of_several_sigma_in_five_of_forty_metrics_is_found(seeds, sigmas):
    generator = np.random.default_rng(1)
    found = 0
    for _ in range(5):
        here = simulated(generator, 40, seeds, sigmas, 5)
        worse = judged(here, simulated(generator, 40, seeds), EXACT).regressions
        found += len(set(worse["metric"]) & {f"m{i}" for i in range(5)})
    assert found >= 22


TABLES = st.lists(
    st.builds(
        row,
        st.floats(0.1, 100),
        st.integers(0, 4),
        metric=st.sampled_from(["loss", "speed", "other"]),
        model=st.sampled_from(["m", "k"]),
        backend=st.sampled_from(["torch", "snntorch"]),
        higher_is_better=st.sampled_from([True, None]),
        n=st.sampled_from([24, 24, 12]),
        layer=st.sampled_from([None, "encoder"]),
        status=st.sampled_from(["ok", "ok", "ok", "failed", "skipped"]),
    ),
    max_size=30,
    unique_by=lambda row: tuple(row[k] for k in ("seed", "metric", "model", "backend", "layer")),
)


@settings(max_examples=10, deadline=None)
@given(table=TABLES)
def test_a_run_compared_with_itself_is_never_a_regression(table):
    comparison = judged(table, table, Policy(strict=True, machine=True))
    assert comparison.regressions.empty
    assert comparison.missing.empty
    assert set(comparison.observations["verdict"]) <= {"same"}


@settings(max_examples=10, deadline=None)
@given(here=TABLES, reference=TABLES, generator=st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(here, reference, generator):
    shuffled = [generator.sample(table, len(table)) for table in (here, reference)]
    one, other = (judged(*tables, POLICY) for tables in ((here, reference), shuffled))
    verdicts = [found.observations.drop(columns=["pair", "reason"]) for found in (one, other)]
    pd.testing.assert_frame_equal(*verdicts, check_exact=False)
    assert one.exit_code == other.exit_code


@settings(max_examples=10, deadline=None)
@given(here=TABLES, reference=TABLES)
def test_swapping_the_sides_turns_better_into_worse(here, reference):
    tables = [[known for known in table if known["status"] == "ok"] for table in (here, reference)]
    policy = Policy({name: MetricDeclaration(0.0) for name in ("loss", "speed", "other")})
    one, other = verdicts(judged(*tables, policy)), verdicts(judged(*reversed(tables), policy))
    swapped = {"better": "worse", "worse": "better"}
    assert {key: swapped.get(word, word) for key, word in one.items()} == other


def verdicts(comparison: Comparison):
    names = ["model", "backend", "metric", "layer"]
    both = ~comparison.observations["verdict"].isin(["missing", "new"])
    found = comparison.observations[both].fillna({"layer": ""})
    return dict(zip(found[names].itertuples(index=False, name=None), found["verdict"], strict=True))


# What is printed

ODD = "a|b<script>alert(1)</script>*x*_y_`z`\\textbf{q}&[l](u)"


def test_markdown_escapes_names_and_folds_up_what_is_not_worse(gate):
    names = {"model": ODD, "metric": ODD}
    code, out, _ = gate([row(9.0, **names)], [row(1.0, **names)], "--format", "md")
    assert code == 1
    assert out.startswith("## ❌ Regression: 1 observation is worse than in the reference.")
    assert "<script" not in out
    (line,) = (line for line in out.splitlines() if "script" in line and line.startswith("| "))
    assert line.replace("\\|", "").count("|") == 6
    assert out.count("<details") == out.count("</details>") > 0


def test_junit_is_valid_and_tells_failures_errors_and_skips(gate, tmp_path):
    names = {"model": ODD + "\x00\x1b", "metric": "loss\x0b"}
    here = [
        row(9.0, **names),
        row(1.0),
        row(1.0, metric="fid", n=9),
        row(None, metric="kid", status="skipped", reason="]]>"),
    ]
    reference = [
        row(1.0, **names),
        row(1.0),
        row(1.0, metric="fid"),
        row(1.0, metric="kid"),
        row(1.0, backend="gone"),
    ]
    path = tmp_path / "gate.xml"
    code, out, _ = gate(here, reference, "--format", "junit", "--out", path)
    assert code == 1
    assert out.startswith("Regression: 1 observation")
    suite = ElementTree.parse(path).getroot().find("testsuite")
    kinds = {
        (case.get("classname"), case.get("name")): [
            part.tag for part in case if part.tag != "system-out"
        ]
        for case in suite
    }
    assert sorted(kind for parts in kinds.values() for kind in parts) == [
        "error", "error", "failure", "skipped",
    ]  # fmt: skip
    assert kinds["m / torch / digits", "loss"] == []
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == [
        "5",
        "1",
        "2",
        "1",
    ]
    assert "loss\ufffd (test): worse, 1 -> 9" in suite.find("testcase/failure").get("message")


def test_the_short_form_leaves_out_what_is_the_same(gate):
    here, reference = [row(1.0)], [row(1.0)]
    assert "loss" not in gate(here, reference)[1].partition("Note")[0]
    assert "loss (test)" in gate(here, reference, "--all")[1]


# Mistakes


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("content", [None, "empty", "other"])
def test_what_is_no_run_directory_is_a_mistake_of_one_line(
    bench_cli, run_directory, tmp_path, side, content
):
    folder = tmp_path / "no-run"
    if content:
        folder.mkdir()
    if content == "other":
        (folder / "notes.txt").write_text("mine")
    folders = [run_directory("run", [row(1.0)])] * 2
    folders[side] = folder
    code, out, err = bench_cli("compare", *folders)
    assert (code, out) == (2, "")
    assert "not a run directory" in err
    assert err.count("\n") == 1


def test_mistakes_in_the_options(gate, tmp_path):
    (tmp_path / "file").write_text("")
    file = tmp_path / "file" / "x"
    for options in (["--format", "pdf"], ["--allow-failed"], ["--keep"], ["--out", file]):
        code, _, err = gate([row(1.0)], [row(1.0)], *options)
        assert (code, err.count("\n")) == (2, 1), options


@pytest.mark.parametrize(
    "commands", ["[7]", '[{"metrics": null}]', '[{"metrics": {"fad": {"weight": 1}}}]']
)
def test_a_reference_with_a_broken_run_file_is_one_line(
    bench_cli, run_directory, tmp_path, commands
):
    here, reference = (run_directory(name, [row(1.0)]) for name in ("here", "reference"))
    (reference / "run.json").write_text(f'{{"schema_version": 2, "commands": {commands}}}')
    code, _, err = bench_cli("compare", here, reference)
    assert (code, err.count("\n")) == (2, 1)
    assert "run.json says of its metrics cannot be read" in err


# References


def test_update_writes_a_reference_that_the_run_is_the_same_as(bench_cli, tiny_run, tmp_path):
    run, reference = tiny_run[0], tmp_path / "deep" / "reference"
    code, out, _ = bench_cli("reference", "update", run, reference)
    assert code == 0
    assert sorted(path.name for path in reference.iterdir()) == [
        "extractors", "results.parquet", "run.json", "values.csv",
    ]  # fmt: skip
    assert all(str(reference / name) in out for name in ("values.csv", "results.parquet"))
    assert len(bench.load_results(reference)) == len(tiny_run[1])
    whole = tiny_run[1][tiny_run[1][["layer", "time_step"]].isna().all(axis=1)]
    values = pd.read_csv(reference / "values.csv")["value"]
    np.testing.assert_allclose(
        np.sort(values.dropna()), np.sort(whole["value"].dropna()), rtol=1e-5
    )
    code, out, _ = bench_cli("compare", run, reference, "--strict", "--machine")
    assert (code, "No regression." in out, "Note" in out) == (0, True, False)
    before = contents(reference)
    (reference / "README.md").write_text("how it was made")
    bench_cli("reference", "update", run, reference)
    after = contents(reference)
    assert after == {**before, "README.md": b"how it was made"}
    assert not [path for path in reference.parent.iterdir() if path != reference]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_reference_may_be_described_before_it_is_made(bench_cli, run_directory, tmp_path):
    run, reference = run_directory("run", [row(1.0)]), tmp_path / "reference"
    reference.mkdir()
    (reference / "README.md").write_text("how it is made")
    assert bench_cli("reference", "update", run, reference)[0] == 0
    assert (reference / "README.md").read_text() == "how it is made"
    assert list(bench.load_results(reference)["value"]) == [1.0]


def test_a_reference_is_made_in_several_runs(bench_cli, run_directory, tmp_path):
    """What the newer run has replaces what the reference had; its other cells stay."""
    reference = tmp_path / "reference"
    first = run_directory("first", [row(1.0), row(2.0, seed=1), row(3.0, metric="fad", seed=1)])
    second = run_directory(
        "second",
        [row(20.0, seed=1), row(30.0, seed=2), row(4.0, model="b")],
        {"loss": {"tolerance": 0.5}},
    )
    bench_cli("reference", "update", "--keep", first, reference)
    assert bench_cli("reference", "update", "--keep", second, reference)[0] == 0
    rows = bench.load_results(reference)[["model", "seed", "metric", "value"]]
    assert sorted(rows.itertuples(index=False, name=None)) == [
        ("b", 0, "loss", 4.0),
        ("m", 0, "loss", 1.0),
        ("m", 1, "loss", 20.0),
        ("m", 2, "loss", 30.0),
    ]
    before = (reference / "run.json").read_bytes()
    made = [command["metrics"] for command in json.loads(before)["commands"]]
    assert made == [{}, {"loss": {"tolerance": 0.5}}]
    bench_cli("reference", "update", "--keep", second, reference)
    assert (reference / "run.json").read_bytes() == before


def test_an_interrupted_update_leaves_the_old_reference(
    bench_cli, run_directory, tmp_path, monkeypatch
):
    old, new = run_directory("old", [row(1.0)]), run_directory("new", [row(2.0)])
    reference = tmp_path / "references" / "smoke"
    bench_cli("reference", "update", old, reference)
    rename = shutil.os.rename

    def interrupted(source, target):
        if target == reference and source.name == "new":
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr("os.rename", interrupted)
    assert bench_cli("reference", "update", new, reference)[0] == 130
    assert list(bench.load_results(reference)["value"]) == [1.0]
    assert list(reference.parent.iterdir()) == [reference]


def test_update_leaves_other_folders_alone(bench_cli, run_directory, tmp_path):
    run = run_directory("run", [row(1.0)])
    mine, cells, file = tmp_path / "mine", run_directory("cells", [row(1.0)]), tmp_path / "file"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    (cells / "cells").mkdir()
    file.write_text("x")
    for target in (mine, cells, file, run):
        before = sorted(tmp_path.rglob("*"))
        code, _, err = bench_cli("reference", "update", run, target)
        assert (code, err.count("\n")) == (2, 1)
        assert sorted(tmp_path.rglob("*")) == before


def test_a_run_with_failures_becomes_a_reference_only_on_purpose(
    bench_cli, run_directory, tmp_path
):
    failed = row(None, metric="fid", status="failed", reason="no")
    run = run_directory("run", [row(1.0), failed])
    reference = tmp_path / "reference"
    code, _, err = bench_cli("reference", "update", run, reference)
    assert (code, "--allow-failed" in err, reference.exists()) == (2, True, False)
    assert bench_cli("reference", "update", "--allow-failed", run, reference)[0] == 0
    empty = run_directory("empty", [])
    assert bench_cli("reference", "update", empty, reference)[0] == 2


# A real regression


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_a_model_broken_on_purpose_fails_the_gate(bench_cli, tiny, tmp_path, monkeypatch, seeds):
    metrics = "reconstruction_loss,parameter_count"
    arguments = {"models": "ann_vae", "settings": tiny, "seeds": seeds, "metrics": metrics}
    bench.run(**arguments, out=tmp_path / "before")
    bench_cli("reference", "update", tmp_path / "before", tmp_path / "reference")
    whole = ANNVAE.decode
    monkeypatch.setattr(ANNVAE, "decode", lambda self, latents: whole(self, latents) * 0 + 1)
    bench.run(**arguments, out=tmp_path / "broken")
    code, out, _ = bench_cli("compare", tmp_path / "broken", tmp_path / "reference")
    assert code == 1
    worse = out.split("Worse")[1].split("Of the machine")[0]
    assert "reconstruction_loss (test)" in worse
    assert "parameter_count" not in worse


def test_a_run_carries_what_its_metrics_declare(tiny_run):
    command, _ = json.loads((tiny_run[0] / "run.json").read_text())["commands"]
    loss = command["metrics"]["reconstruction_loss"]
    assert (loss["tolerance"], loss["reproducible"]) == (0.02, True)
    assert command["metrics"]["peak_memory"]["reproducible"] is False
