"""Which model is best: the table of models, its verdicts, and metrics by models."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_runs import row, write_run
from scipy import stats

import bench
from bench.report.best_models import best_models
from bench.report.model_means import fold, over_seeds
from bench.report.page.measurement_tables import measurement_tables
from bench.report.page.model_tables import ModelTable, model_tables
from bench.report.run_reader import Run
from bench.store.run_directory import frame


def seeds(model, values, metric="reconstruction_loss", **changes):
    return [row(model, i, metric, value, **changes) for i, value in enumerate(values)]


@pytest.fixture
def run(tmp_path):
    numbers = itertools.count()

    def written(*rows):
        return Run(write_run(tmp_path / f"run{next(numbers)}", list(itertools.chain(*rows))))

    return written


def texts(table, column):
    """The entries of a column by row, the footer's under ``best``."""
    index = [each.heading for each in table.columns].index(column)
    return {line[0].text: line[index] for line in (*table.rows, table.footer) if line}


def best_of(rows):
    table = frame(rows)
    return best_models(table.assign(name=table["model"]))[0]


def test_the_best_is_bold_where_a_test_over_seeds_says_so(run):
    (table,) = model_tables(
        run(
            seeds("fsvae", (0.10, 0.11, 0.12)),
            seeds("esvae", (0.30, 0.31, 0.32)),
            seeds("vae", (0.50, 0.51, 0.52)),
        )
    )
    shown = texts(table, "reconstruction loss ↓")
    assert {name: entry.strong for name, entry in shown.items()} == {
        **{"fsvae": True, "esvae": False, "vae": False},
        "best": False,
    }
    assert shown["best"].text == "fsvae"
    assert "Welch's t-test" in table.note
    assert "for 3 tests" in table.note


def test_without_a_difference_nothing_is_bold_and_the_equals_are_named(run):
    (table,) = model_tables(
        run(
            seeds("fsvae", (0.10, 0.30, 0.20)),
            seeds("esvae", (0.12, 0.33, 0.22)),
            seeds("vae", (5.0, 5.1, 5.2)),
        )
    )
    shown = texts(table, "reconstruction loss ↓")
    assert not any(entry.strong for entry in shown.values())
    assert (shown["best"].text, shown["best"].detail) == ("no difference", "fsvae, esvae")


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.integers(3, 6))
def test_verdicts_are_corrected_welch_tests(seed, models, count):
    """Against scipy's test on the samples, corrected by the steps of Benjamini and Hochberg."""
    generator = np.random.default_rng(seed)
    metrics = {"reconstruction_loss": False, "ssim": True}
    samples = {
        (metric, f"m{i}"): generator.normal(i / 2, generator.uniform(0.1, 1), count)
        for metric in metrics
        for i in range(models)
    }
    rows = [
        each
        for (metric, model), values in samples.items()
        for each in seeds(model, values, metric, higher_is_better=metrics[metric])
    ]
    pairs = [
        (metric, one, other)
        for metric in metrics
        for one, other in itertools.combinations([f"m{i}" for i in range(models)], 2)
    ]
    p = np.array(
        [stats.ttest_ind(samples[m, a], samples[m, b], equal_var=False).pvalue for m, a, b in pairs]
    )
    below = [k for k, value in enumerate(np.sort(p), 1) if value <= 0.05 * k / len(p)]
    limit = np.sort(p)[below[-1] - 1] if below else -1.0
    differ = {frozenset(pair) for pair, value in zip(pairs, p, strict=True) if value <= limit}
    for metric, best in best_of(rows).items():
        means = {m: samples[metric, m].mean() for m in (f"m{i}" for i in range(models))}
        wanted = max(means, key=means.get) if metrics[metric] else min(means, key=means.get)
        assert best.model == wanted
        equals = {m for m in means if m != wanted and frozenset((metric, wanted, m)) not in differ}
        assert set(best.equals) == equals
    table = frame(rows)
    assert best_models(table.assign(name=table["model"]))[1] == len(pairs)


@pytest.mark.parametrize(("width", "equals"), [(0.04, ()), (0.06, ("b",))])
def test_with_few_seeds_intervals_decide(width, equals):
    ends = [{"ci_low": v - width, "ci_high": v + width} for v in (0.1, 0.2)]
    found = best_of([row("a", value=0.1, **ends[0]), row("b", value=0.2, **ends[1])])
    assert found["reconstruction_loss"].equals == equals
    assert found["reconstruction_loss"].methods == {"intervals"}


def test_without_seeds_and_intervals_nothing_is_compared(run):
    (table,) = model_tables(run([row("a", value=0.1)], [row("b", value=0.2)]))
    shown = texts(table, "reconstruction loss ↓")
    assert (shown["a"].strong, shown["best"].text) == (False, "not compared")
    assert "without an interval are not compared" in table.note


def test_counts_that_are_no_estimates_differ_if_they_are_not_equal():
    def counted(model, value):
        return row(model, 0, "parameter_count", value, n=None, split=None, unit="parameters")

    found = best_of([counted("a", 10.0), counted("b", 20.0), counted("c", 10.0)])
    assert found["parameter_count"].equals == ("c",)


def test_samples_without_spread_differ_unless_they_are_equal():
    found = best_of([*seeds("a", [1.0] * 3), *seeds("b", [2.0] * 3), *seeds("c", [1.0] * 3)])
    assert found["reconstruction_loss"].equals == ("c",)


def test_a_metric_without_a_direction_has_no_best(run):
    rate = {"metric": "firing_rate", "higher_is_better": None}
    (table,) = model_tables(
        run(seeds("a", (0.1, 0.1, 0.2), **rate), seeds("b", (0.8, 0.9, 0.9), **rate))
    )
    assert texts(table, "firing rate")["best"].text == ""


def test_backends_of_a_model_are_one_row(run):
    same = [seeds("vae", (0.4, 0.5, 0.6), backend=name) for name in ("snntorch", "reference")]
    (table,) = model_tables(run(*same, seeds("gan", (0.7, 0.8, 0.9))))
    shown = texts(table, "reconstruction loss ↓")
    assert shown["vae"].line == "0.50 ± 0.25"
    assert texts(table, "model")["vae"].detail == "snntorch and reference: same numbers"
    (measured,) = measurement_tables(run(*same))
    assert [column.heading for column in measured.columns] == ["metric", "vae"]
    assert measured.note == (
        "vae: reference and snntorch have the same numbers, except for speed and memory."
    )


def test_backends_that_differ_are_averaged_with_their_range(run):
    parts = run(seeds("vae", (0.4, 0.5, 0.6)), seeds("vae", (0.6, 0.7, 0.8), backend="fused"))
    (table,) = model_tables(parts)
    entry = texts(table, "reconstruction loss ↓")["vae"]
    assert entry.line == "0.60 ± 0.25"
    assert "by backend 0.5 to 0.7" in entry.note
    assert texts(table, "model")["vae"].detail == "mean of torch and fused"
    (measured,) = measurement_tables(parts)
    assert [c.heading for c in measured.columns] == ["metric", "vae / torch", "vae / fused"]


def test_the_speed_of_several_backends_is_a_range(run):
    speed = {"metric": "training_throughput", "unit": "images/s", "split": "train"}
    (table,) = model_tables(
        run(
            seeds("vae", (100.0, 110.0, 120.0), higher_is_better=True, **speed),
            seeds("vae", (300.0, 310.0, 320.0), backend="fused", higher_is_better=True, **speed),
        )
    )
    assert texts(table, "training, images/s ↑")["vae"].text == "110 to 310"


def test_each_dataset_and_protocol_has_a_table(run):
    tables = model_tables(
        run(
            seeds("vae", (0.4, 0.5)),
            seeds("vae", (0.4, 0.5), dataset="mnist", dataset_variant="subset"),
            seeds("vae", (0.4, 0.5), protocol="quick", protocol_hash="b" * 64),
        )
    )
    assert [table.title for table in tables] == [
        "digits, protocol smoke",
        "mnist, protocol smoke, a subset of the dataset",
        "digits, protocol quick",
    ]


@pytest.mark.parametrize(
    "change", [{"n": 30}, {"extractor": "another"}, {"metric_version": "2"}, {"train_images": 7}]
)
def test_numbers_that_are_not_comparable_have_no_verdict(run, change):
    better, worse = seeds("a", (0.1, 0.11, 0.12)), seeds("b", (0.9, 0.91, 0.92))
    (table,) = model_tables(run(better, worse))
    assert texts(table, "reconstruction loss ↓")["a"].strong
    (table,) = model_tables(run(better, seeds("b", (0.9, 0.91, 0.92), **change)))
    shown = texts(table, "reconstruction loss ↓")
    assert (shown["a"].strong, shown["best"].text) == (False, "not comparable")


def test_tables_of_two_devices_name_them(run):
    parts = run(seeds("a", (0.1, 0.2)), seeds("b", (0.1, 0.2), device="cuda"))
    titles = [table.title for table in model_tables(parts)]
    assert titles == ["digits, protocol smoke, on cpu", "digits, protocol smoke, on cuda"]


def test_training_budgets_are_shown_and_differences_marked(run):
    equal, different = seeds("a", (0.1, 0.2)), seeds("b", (0.1, 0.2), epoch=5)
    (table,) = model_tables(run(equal, seeds("b", (0.3, 0.4))))
    assert "different numbers of images" not in table.note
    (table,) = model_tables(run(equal, different))
    shown = texts(table, "trained on, images")
    assert (shown["a"].text, shown["b"].text) == ("200", "500")
    assert "different numbers of images" in table.note


def test_one_seed_has_the_interval_over_images(run):
    (table,) = model_tables(run([row("a", value=0.5, ci_low=0.4, ci_high=0.6)]))
    assert texts(table, "reconstruction loss ↓")["a"].line == "0.50 ± 0.10"


def test_versions_of_a_model_are_told_apart(run):
    newer = seeds("vae", (0.1, 0.2), model_version="2")
    (table,) = model_tables(run(seeds("vae", (0.4, 0.5)), newer))
    assert [line[0].text for line in table.rows] == ["vae, version 1", "vae, version 2"]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=5))
@settings(deadline=None, max_examples=40)
def test_intervals_of_shares_stay_between_0_and_1(values):
    rows = frame(seeds("vae", values, "dead_neurons"))
    bounds = {"dead_neurons": (0.0, 1.0)}
    within, free = bench.across_seeds(rows, bounds).iloc[0], bench.across_seeds(rows).iloc[0]
    assert within["ci_low"] == pytest.approx(max(free["ci_low"], 0))
    assert within["ci_high"] == pytest.approx(min(free["ci_high"], 1))
    assert within["value"] == free["value"]


def test_the_page_and_the_files_of_a_run_keep_to_the_bounds(tiny_run):
    out, rows = tiny_run
    run = Run(out)
    assert run.declarations["ssim"].bounds == (-1.0, 1.0)
    assert run.declarations["dead_neurons"].group == "spikes"
    named = fold(rows[rows["kind"] == "model"].assign(name=rows["model"]))
    means = over_seeds(named, run)
    assert means.loc[means["metric"] == "dead_neurons", "ci_low"].dropna().ge(0).all()


def test_measurements_are_metrics_by_models_in_groups(tiny_run):
    out, rows = tiny_run
    tables = measurement_tables(Run(out))
    titles = [table.title.partition(":")[0] for table in tables]
    assert titles == ["Quality", "Robustness", "Spikes", "Cost"]
    models = set(rows.loc[rows["kind"] == "model", "model"])
    for table in tables:
        headings = [column.heading for column in table.columns[1:]]
        assert {heading.split(" / ")[0] for heading in headings} == models
    labels = {line[0].text for table in tables for line in table.rows}
    assert {"PSNR ↑", "synaptic operations, dense ↓", "dead neurons"} <= labels
    sizes = next(line[0] for line in tables[3].rows if line[0].text.startswith("size of weights"))
    assert sizes.detail in {"MB", "kB"}


def test_cells_that_lack_only_a_package_are_complete(bench_cli, run):
    lacking = {"value": None, "status": "not_installed", "reason": "the package x is missing"}
    parts = run([row("a", value=0.5), row("a", metric="efficientnet_kid", **lacking)])
    assert bench_cli("report", parts.path)[0] == 0
    page = (parts.path / "report.html").read_text()
    assert "1: 1 ok" in page
    assert "the package x is missing" in page


def test_a_number_that_was_not_asked_for_does_not_rename_its_model(run):
    lacking = {"status": "not_asked", "reason": "ask", "n": None, "value": None, "epoch": None}
    rows = [row(metric="ssim", train_images=None, **lacking)]
    (table,) = model_tables(run(seeds("vae", (0.1,)), rows))
    assert [line[0].text for line in table.rows] == ["vae"]


def test_speed_of_different_devices_in_one_setting_is_not_ranked(run):
    """The report has a table per device; a leaderboard has one for all."""
    fast = {"unit": "images/s", "split": "train", "higher_is_better": True}
    rows = seeds("a", (1.0, 1.1, 1.2), "training_throughput", device="cpu", **fast)
    rows += seeds("b", (9.0, 9.1, 9.2), "training_throughput", device="GPU", **fast)
    made = run(rows)
    named = made.rows.assign(name=made.rows["model"])
    table = ModelTable(made, named, made.headlines("report")).table("t", "title")
    (column,) = (i for i, each in enumerate(table.columns) if each.heading.startswith("training"))
    assert table.footer[column].text == "not comparable"
    assert not any(line[column].strong for line in table.rows)
    assert "different devices" in table.note
