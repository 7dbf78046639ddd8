"""The verdict on a backend in the rows of a run, and its mark wherever the run is shown."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from tiny import TINY

import bench
from bench.comparison.compare import compare
from bench.registry import backends, models
from bench.report.papers.paper_table import paper_table, render
from bench.report.plots.drawing import draw_plot, load_plots
from bench.report.plots.plot_data import series_names
from bench.report.run_reader import Run
from bench.store.other_neurons import FOOTNOTE, IN_SHORT, MARK
from bench.store.run_directory import frame, load_results
from bench.testing import neuron_verdict

PLUGIN = """
from dataclasses import replace

import torch
from bench.backend import SpikingBackend, SpikingNeuron
from bench.testing.equations import PlainNeuron
from toys import SoftBackend


class Noise(SpikingNeuron):
    def integrate(self, currents, membrane):
        return torch.randn_like(currents), currents[-1]


class NoiseBackend(SpikingBackend):
    def neuron(self, spec):
        return Noise(spec)


class OtherBackend(SpikingBackend):
    def neuron(self, spec):
        return PlainNeuron(replace(spec, decay=0.5))
"""
METRICS = "reconstruction_loss,energy"
MARKED = f"soft{MARK}"


@pytest.fixture
def soft(plugins):
    plugins(
        "plugin_soft",
        PLUGIN,
        backends={"soft": "plugin_soft:SoftBackend", "noise": "plugin_soft:NoiseBackend"},
    )


@pytest.fixture
def run(soft, tmp_path):
    out = tmp_path / "run"
    rows = bench.run(
        "esvae,ann_vae",
        backends="reference,soft",
        settings=TINY,
        metrics=METRICS,
        out=out,
    )
    return out, rows


def shown_everywhere(bench_cli, out):
    """Each text that names the backends of a run."""
    yield bench_cli("results", out, "--where", "metric=reconstruction_loss")[1]
    yield bench_cli("results", out, "--where", "metric=reconstruction_loss", "--format", "md")[1]
    yield bench_cli("compare", out, out, "--all")[1]
    bench_cli("report", out, "--format", "md")
    yield (out / "report.md").read_text()


def test_the_verdict_is_in_each_row_and_the_mark_wherever_the_run_is_shown(run, bench_cli):
    out, rows = run
    spiking = rows[(rows["model"] == "esvae") & (rows["status"] == "ok")]
    verdicts = spiking.groupby("backend")["neuron_verdict"].unique().map(list).to_dict()
    assert verdicts == {"reference": ["exact"], "soft": ["another_neuron"]}
    assert rows.loc[rows["model"] != "esvae", "neuron_verdict"].isna().all()
    assert load_results(out)["backend"].str.contains(MARK).sum() == 0
    for text in shown_everywhere(bench_cli, out):
        assert MARKED in text
        assert FOOTNOTE in text.replace("\\", "")
        assert f"reference{MARK}" not in text
    run = Run(out)
    assert series_names(run)[1] == ["reference", MARKED, "torch"]
    figures = {}
    for name in ("metric_by_model", "quality_against_energy"):
        drawing = draw_plot(load_plots([name])[name], run)
        (legend,) = drawing.figure.legends
        names = [text.get_text() for text in legend.get_texts()]
        assert MARKED in names
        assert IN_SHORT in names
        figures[name] = drawing.rows
        plt.close(drawing.figure)
    energy = figures["quality_against_energy"]
    assert set(energy.loc[energy["pareto"], "backend"]) <= {"reference", "torch"}
    assert MARKED in set(energy["backend"])


def test_the_summary_and_the_profile_mark_it_too(soft, bench_cli, tmp_path, tiny_flags):
    shared = ["--models", "esvae", "--backends", "soft", *tiny_flags]
    _, out, _ = bench_cli(
        "run", *shared, "--metrics", "reconstruction_loss", "--out", tmp_path / "run"
    )
    assert MARKED in out
    assert FOOTNOTE in " ".join(out.split())
    _, out, _ = bench_cli("profile", *shared, "--repeats", "1")
    assert MARKED in out
    assert FOOTNOTE in " ".join(out.split())


def test_noise_in_place_of_spikes_fails_the_cell(soft, tmp_path):
    rows = bench.run(
        "esvae", backends="noise", settings=TINY, metrics="reconstruction_loss", out=tmp_path / "r"
    )
    failed = rows[(rows["model"] == "esvae") & (rows["status"] == "failed")]
    assert failed["reason"].str.contains("Spiking layer .* neither 0 nor 1").all()
    assert len(failed) == 1


def test_neurons_without_leak_run_on_every_backend(tmp_path):
    rows = bench.run(
        "esvae",
        backends="all",
        settings=(*TINY, "membrane_decay=1"),
        metrics="reconstruction_loss,firing_rate",
        out=tmp_path / "run",
    )
    measured = rows[(rows["model"] == "esvae") & (rows["status"] == "ok")]
    verdicts = measured.groupby("backend")["neuron_verdict"].unique().map(set).to_dict()
    assert verdicts.keys() == {"reference", "snntorch", "spikingjelly", "fused"}
    assert set.union(*verdicts.values()) <= {"exact", "within_rounding"}
    values = {name: list(part["value"]) for name, part in measured.groupby("backend")}
    assert values["reference"] == values["snntorch"] == values["spikingjelly"]
    # Training amplifies what the layers of fused round.
    losses = measured[measured["metric"] == "reconstruction_loss"].set_index("backend")["value"]
    assert losses["fused"] == pytest.approx(losses["reference"], rel=0.05)
    rates = measured.loc[measured["metric"] == "firing_rate", "value"]
    assert rates.max() > 0.05


def test_rows_without_a_verdict_are_compared_with_rows_that_have_one(model_rows):
    old = model_rows.assign(neuron_verdict=pd.NA)
    assert compare(model_rows, old).exit_code == 0
    assert compare(model_rows, old).notes == compare(old, old).notes


def test_a_paper_table_marks_it_and_its_command_does_not(model_rows):
    rows = model_rows[model_rows["backend"].isin(["fused", "torch"])]
    rows = rows.assign(
        dataset="mnist",
        neuron_verdict=rows["neuron_verdict"].mask(rows["backend"] == "fused", "another_neuron"),
    )
    table = paper_table("fsvae-table-1", rows)
    commands = table["command"].dropna()
    assert f"fused{MARK}" in set(table["backend"])
    assert commands.str.contains("--backends fused --").any()
    assert not commands.str.contains(MARK).any()
    assert r"fused $\dagger$" in render(table, "latex")
    for form in ("terminal", "md", "html"):
        assert f"fused{MARK}" in render(table, form)


def test_old_rows_have_no_verdict_and_no_mark():
    rows = frame([{"model": "esvae", "backend": "fused"}])
    assert rows["neuron_verdict"].isna().all()


def test_a_verdict_is_computed_once_and_moves_no_random_number(build, monkeypatch):
    model = build("esvae", (1, 32, 32))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    monkeypatch.setattr(neuron_verdict, "_known", {})
    assert neuron_verdict.model_verdict(model) == "exact"
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr(neuron_verdict, "findings", None)
    assert neuron_verdict.model_verdict(model) == "exact"
    assert neuron_verdict.model_verdict(build("ann_vae", (1, 32, 32))) is None


def test_the_protocols_neuron_counts_whatever_the_neurons_say_of_themselves(plugins, resolve):
    plugins("plugin_other", PLUGIN, backends={"other": "plugin_other:OtherBackend"})
    backend = backends.load("other")()
    model = models.load("esvae")((1, 32, 32), resolve("esvae"), backend)
    assert neuron_verdict.model_verdict(model) == "another_neuron"
