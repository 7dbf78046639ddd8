"""``bench.open``: a run for notebooks and scripts."""

import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from page_runs import SCRIPT, failed, row, write_run
from PIL import Image
from scipy import stats
from test_page import Page, seeds

import bench
from bench import BenchError
from bench.report.plots.plot import NotDrawnError

HEADINGS = ["model", "backend", "dataset", "seeds"]


def test_the_rows_are_those_of_the_run_directory(tiny_run):
    path, rows = tiny_run
    pd.testing.assert_frame_equal(bench.open(path).rows, rows)


def test_the_table_has_means_and_half_intervals_over_seeds(tmp_path):
    values = {"a": [0.4, 0.5, 0.7], "b": [0.2]}
    rows = [each for model in values for each in seeds(model, values=values[model])]
    rows += seeds("a", "ssim", (0.1, 0.12)) + seeds("a", "ssim", (5.0, 7.0), split="train")
    table = bench.open(write_run(tmp_path / "run", rows)).table()
    metrics = ["reconstruction loss", "reconstruction loss ±", "SSIM", "SSIM ±"]
    assert list(table) == [*HEADINGS, *metrics]
    first, second = table.to_dict("records")
    assert [first[name] for name in HEADINGS] == ["a", "torch", "digits", 3]
    assert [second[name] for name in HEADINGS] == ["b", "torch", "digits", 1]
    for metric, numbers in (("reconstruction loss", values["a"]), ("SSIM", [0.1, 0.12])):
        n = len(numbers)
        half = stats.t.ppf(0.975, n - 1) * np.std(numbers, ddof=1) / np.sqrt(n)
        assert [first[metric], first[f"{metric} ±"]] == pytest.approx([np.mean(numbers), half])
    assert second["reconstruction loss"] == 0.2
    assert np.isnan([second[name] for name in metrics[1:]]).all()


def test_cells_that_differ_have_rows_of_their_own_that_say_how(tmp_path):
    rows = [row(), row(protocol="mine", protocol_hash="b" * 64, value=0.25)]
    rows += [row("broken", protocol="mine", value=None, status="failed", reason="NaN")]
    table = bench.open(write_run(tmp_path / "run", rows)).table()
    assert list(table) == [*HEADINGS[:3], "protocol", "seeds", *table.columns[5:]]
    assert table["protocol"].tolist() == ["smoke", "mine", "mine"]
    assert table["reconstruction loss"].tolist()[:2] == [0.5, 0.25]
    assert np.isnan(table["reconstruction loss"][2])


def test_the_table_agrees_with_the_page_of_a_real_run(tiny_run):
    run = bench.open(tiny_run[0])
    page, table = Page(run._repr_html_()), run.table()
    shown = {float(a["data-order"]) for tag, a in page.tags if tag == "td" and "data-order" in a}
    # The page has one row for the backends of a model.
    alone = table[~table["model"].duplicated(keep=False)]
    numbers = alone.drop(columns=["model", "backend", "dataset"])
    numbers = numbers[[name for name in numbers if not name.endswith("±")]].to_numpy(float)
    assert shown.issuperset(numbers[~np.isnan(numbers)].tolist())
    assert len(shown) > 3 * len(alone) > 6


def test_a_notebook_shows_the_name_the_facts_and_the_main_metrics(tmp_path):
    run = bench.open(write_run(tmp_path / "mine", [*seeds(SCRIPT), failed("no luck", model="b")]))
    page = Page(run._repr_html_())
    assert page.headings == [(3, "mine")]
    assert "script" not in {tag for tag, _ in page.tags}
    for text in (SCRIPT, "3 ok, 1 failed", "0.50 ± 0.25", "reconstruction loss ↓", "Student's t"):
        assert text in page.text
    assert repr(run) == f"OpenedRun({str(tmp_path / 'mine')!r})"


def test_a_run_without_rows_is_shown_as_one(tmp_path):
    run = bench.open(write_run(tmp_path / "run", []))
    assert "This run has no rows yet." in run._repr_html_()
    assert run.table().empty
    with pytest.raises(NotDrawnError, match="the run has no rows"):
        run.plot("metric_by_model")


def test_any_registered_plot_is_a_figure_that_a_notebook_shows(tiny_run):
    run = bench.open(tiny_run[0])
    figure = run.plot("samples")
    assert isinstance(figure, Figure)
    assert figure.axes
    shown = Image.open(io.BytesIO(figure._repr_png_()))
    assert shown.size == pytest.approx(200 * figure.get_size_inches(), abs=1)
    with pytest.raises(BenchError, match=r"Unknown plot 'sampels'\. Did you mean: samples\?"):
        run.plot("sampels")


def test_what_is_no_run_directory_is_refused_at_once(tmp_path):
    with pytest.raises(BenchError, match="is not a run directory"):
        bench.open(tmp_path)


def test_the_public_names_are_ten_and_open_needs_no_torch(tmp_path):
    assert len(bench.__all__) == 10
    assert all(hasattr(bench, name) for name in bench.__all__)
    path = write_run(tmp_path / "run", [row()])
    code = "import sys, bench; bench.open(sys.argv[1]).rows; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, path], check=True)
