import gzip
import io
import re
from pathlib import Path

import pandas as pd
import pytest
from page_runs import row, write_run

from bench.report.plots.drawing import load_plots

DOCS = Path(__file__).parents[2] / "docs" / "plots.md"
LARGEST_PLUGIN = 30
HEADER = """
from matplotlib.figure import Figure
from bench.report.plots.plot import NotDrawnError, Plot

class Base(Plot):
    title = "Of a plug-in"
    caption = "A caption."
"""


def example():
    """The plug-in that docs/plots.md shows, and its entry point."""
    text = DOCS.read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (source,) = (block for block in code if "(Plot):" in block)
    ((name, target),) = re.findall(r'^(\w+) = "mine:(\w+)"$', text, re.MULTILINE)
    return source, name, target


@pytest.fixture
def run(tmp_path):
    """A run of two models and two seeds."""
    rows = [
        row(model, seed, metric, 10.0 * (seed + 1) + len(model), higher_is_better=True)
        for model in ("vae", "spiking_vae")
        for seed in (0, 1)
        for metric in ("psnr", "ssim")
    ]
    return write_run(tmp_path / "run", rows)


def test_the_plot_of_the_docs_has_at_most_thirty_lines():
    source, *_ = example()
    assert len(source.strip().splitlines()) <= LARGEST_PLUGIN


def test_the_plot_of_the_docs_is_drawn_by_bench_plot(plugins, bench_cli, run, tmp_path):
    source, name, target = example()
    plugins("plugin_docs", source, plots={name: f"plugin_docs:{target}"})
    code, out, err = bench_cli("plot", run, name, "--out", tmp_path / "plots")
    assert (code, err) == (0, "")
    assert out.startswith(f"{name}: ")
    written = {path.name for path in (tmp_path / "plots").iterdir()}
    assert written == {f"{name}.png", f"{name}.svg", f"{name}.csv"}
    data = pd.read_csv(tmp_path / "plots" / f"{name}.csv")
    assert set(data["context"]) == {"digits, n=20"}
    assert sorted(data["value"]) == [13.0, 21.0, 23.0, 31.0]


def test_the_plot_of_the_docs_obeys_where_and_says_why_it_is_not_drawn(plugins, bench_cli, run):
    source, name, target = example()
    plugins("plugin_docs", source, plots={name: f"plugin_docs:{target}"})
    code, _, _ = bench_cli("plot", run, name, "--where", "model=vae")
    assert code == 0
    assert set(pd.read_csv(run / "plots" / f"{name}.csv")["model"]) == {"vae"}
    code, out, _ = bench_cli("plot", run, name, "--where", "metric=ssim")
    assert code == 1
    assert out == f"{name}: not drawn: the run has no rows of psnr\n"


def test_the_plot_of_the_docs_is_in_both_reports_with_its_data(plugins, bench_cli, run):
    source, name, target = example()
    plugins("plugin_docs", source, plots={name: f"plugin_docs:{target}"})
    plots = load_plots()
    assert list(plots)[-1] == name
    for file_format in ("html", "md"):
        code, _, err = bench_cli("report", run, "--format", file_format)
        assert (code, err) == (0, "")
    html, markdown = ((run / f"report.{extension}").read_text() for extension in ("html", "md"))
    for text in (html, markdown):
        assert plots[name].title in text
        assert plots[name].caption in text
    assert f'download="{name}.csv"' in html
    assert f"report-files/{name}.svg" in markdown
    data = pd.read_csv(run / "report-files" / f"{name}.csv")
    assert sorted(data["value"]) == [13.0, 21.0, 23.0, 31.0]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import no_such_module", "imported from plugin_bad:Bad (package plugin_bad 1.0): Module"),
        ("Bad = 3", "3 is not a subclass of bench.report.plots.plot.Plot"),
        ("class Bad(Plot):\n    title = 1", "Bad.title must be of type str"),
        ("class Bad(Base):\n    order = 'first'", "Bad.order must be of type int"),
        ("class Bad(Base):\n    pass", "abstract"),
        (
            "class Bad(Base):\n    def draw(self, run):\n        return run.rows['nothing']",
            "KeyError: 'nothing' (plugin_bad.py, line 10)",
        ),
        (
            "class Bad(Base):\n    order = 1\n    def draw(self, run):\n"
            "        del run.rows['metric']\n        return run.rows['metric']",
            "KeyError: 'metric' (plugin_bad.py, line 12)",
        ),
        (
            "class Bad(Base):\n    def draw(self, run):\n        return Figure()",
            "TypeError: draw must return (Figure, DataFrame), not Figure",
        ),
        (
            "class Bad(Base):\n    def draw(self, run):\n        return Figure(), run.rows[:0]",
            "the figure shows no rows",
        ),
        (
            "class Bad(Base):\n    def draw(self, run):\n"
            "        raise NotDrawnError('It\\nrains.')",
            "not drawn: It rains\n",
        ),
        (
            "class Bad(Base):\n    def draw(self, run):\n        figure = Figure(layout='none')\n"
            "        figure.text(0, 0, '$x^$')\n        return figure, run.rows",
            "ValueError: ",
        ),
    ],
)  # fmt: skip
def test_a_broken_plot_is_shown_with_its_reason_and_breaks_no_other(
    plugins, bench_cli, run, body, reason
):
    plugins("plugin_bad", HEADER + body, plots={"bad": "plugin_bad:Bad"})
    code, out, err = bench_cli("plot", run, "metric_by_model", "bad", "--format", "svg")
    assert (code, err) == (0, "")
    assert out.startswith("metric_by_model: ")
    (line,) = (line for line in out.splitlines(keepends=True) if line.startswith("bad: "))
    assert line.startswith("bad: not drawn: ")
    assert reason in line
    code, _, err = bench_cli("report", run, "--format", "md")
    assert (code, err) == (0, "")
    files = {path.name for path in (run / "report-files").iterdir()}
    assert {"metric_by_model.svg", "metric_by_model.csv"} <= files
    assert "bad.svg" not in files
    assert "bad" in load_plots()
    code, out, _ = bench_cli("plot", run, "bad")
    assert (code, out) == (1, line)


def test_a_plot_that_two_packages_claim_is_shown_with_both(plugins, bench_cli, run):
    for package in ("plugin_one", "plugin_two"):
        plugins(package, HEADER, plots={"bad": f"{package}:Base"})
    code, out, _ = bench_cli("plot", run, "bad", "metric_by_model")
    assert code == 0
    assert "claimed by several packages (plugin_one 1.0, plugin_two 1.0)" in out


def test_plots_are_sorted_by_order_then_by_name(plugins):
    source = HEADER + (
        "class Early(Base):\n    order = 15\n    def draw(self, run): ...\n"
        "class Late(Base):\n    def draw(self, run): ...\n"
    )
    targets = {"b": "Late", "a": "Late", "z": "Early"}
    plugins("plugin_order", source, plots={k: f"plugin_order:{v}" for k, v in targets.items()})
    names = list(load_plots())
    assert names[:3] == ["metric_by_model", "z", "quality_against_energy"]
    assert names[-2:] == ["a", "b"]


def test_data_of_a_plugin_is_compressed_if_it_is_large(plugins, bench_cli, run):
    source = HEADER + (
        "class Large(Base):\n    def draw(self, run):\n"
        "        figure = Figure()\n        figure.subplots()\n"
        "        return figure, run.rows.loc[run.rows.index.repeat(2000)]\n"
    )
    plugins("plugin_large", source, plots={"large": "plugin_large:Large"})
    assert bench_cli("report", run, "--format", "md")[0] == 0
    content = gzip.decompress((run / "report-files" / "large.csv.gz").read_bytes())
    assert len(pd.read_csv(io.BytesIO(content))) == 2000 * 8
