import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import FEW_METRICS

import bench
from bench.store.run_directory import frame

NUMBERS = st.floats(-1e6, 1e6)


def row(value, seed, **others):
    named = {"model": "m", "metric": "loss", "status": "ok", **others}
    return {**named, "value": value, "seed": seed, "cell_key": f"{seed}"}


@given(values=st.lists(NUMBERS, min_size=2, max_size=6))
def test_the_interval_covers_the_mean_as_the_t_test_says(values):
    (found,) = bench.across_seeds(
        frame([row(value, seed) for seed, value in enumerate(values)])
    ).itertuples()
    assert found.seeds == len(values)
    assert found.value == pytest.approx(np.mean(values))
    # Two-sided 95 % quantiles of Student's t, from a printed table.
    quantile = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}[len(values)]
    half = quantile * np.std(values, ddof=1) / math.sqrt(len(values))
    assert found.ci_high - found.value == pytest.approx(half, rel=1e-3, abs=1e-6)
    assert found.value - found.ci_low == pytest.approx(half, rel=1e-3, abs=1e-6)


def test_one_seed_has_no_interval():
    (found,) = bench.across_seeds(frame([row(0.5, 0)])).itertuples()
    assert (found.seeds, found.value) == (1, 0.5)
    assert np.isnan([found.standard_deviation, found.ci_low, found.ci_high]).all()


def test_only_rows_that_differ_by_their_seed_alone_are_taken_together():
    rows = [
        row(1.0, 0),
        row(3.0, 1),
        row(5.0, 0, noise_kind="input_gaussian", noise_level=0.1),
        row(7.0, 0, noise_kind="input_gaussian", noise_level=0.2),
        row(9.0, 0, backend="snntorch"),
        row(11.0, 0, epoch_selection="best_test_loss"),
        row(None, 2, status="failed"),
    ]
    found = bench.across_seeds(frame(rows))
    assert dict(zip(found["value"], found["seeds"], strict=True)) == {
        2.0: 2, 5.0: 1, 7.0: 1, 9.0: 1, 11.0: 1,
    }  # fmt: skip


def test_nothing_known_gives_an_empty_table():
    assert bench.across_seeds(frame([])).empty


def test_a_run_of_several_seeds_prints_and_writes_them_together(bench_cli, tiny_flags, tmp_path):
    arguments = ["--models", "ann_vae", "--seeds", "0,1", *tiny_flags, "--metrics", FEW_METRICS,
                 "--out", tmp_path / "run"]  # fmt: skip
    code, out, _ = bench_cli("run", *arguments)
    assert code == 0
    losses = bench.load_results(tmp_path / "run").query("metric == 'reconstruction_loss'")["value"]
    lines = out.split("Over seeds")[1].splitlines()
    (at,) = (i for i, line in enumerate(lines) if "ann_vae" in line)
    written = pd.read_csv(tmp_path / "run" / "across_seeds.csv")
    (row,) = written.query("metric == 'reconstruction_loss'").itertuples()
    assert f" {losses.mean():.3g} " in lines[at]
    assert f"±{row.ci_high - row.value:.2g} " in lines[at + 1]
    assert (row.seeds, row.value) == (2, pytest.approx(losses.mean()))
