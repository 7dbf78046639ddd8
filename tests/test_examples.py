"""The examples install, keep the contracts of the suite and run."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import commands
import pytest
from tiny import FEW_METRICS

import bench

EXAMPLES = Path(__file__).parents[1] / "examples"
LOSSES = {
    "two_optimizers": [{"generator_loss", "discriminator_loss"}] * 2,
    "two_stage_model": [{"reconstruction_loss"}, {"prior_loss"}],
}
needs_sinabs = pytest.mark.skipif(find_spec("sinabs") is None, reason="sinabs is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder that pip installs the examples to."""
    # pip leaves files next to the sources.
    source, site = tmp_path_factory.mktemp("examples") / "examples", tmp_path_factory.mktemp("site")
    shutil.copytree(EXAMPLES, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", site, source], check=True, capture_output=True)
    return site


@pytest.mark.parametrize("name", LOSSES)
def test_a_model_keeps_its_contract(name, site):
    code, out, err = commands.run("check", "model", name, paths=[site])
    assert code == 0, out + err


def test_both_models_train_and_are_measured(site, tiny_flags, tmp_path):
    flags = [*tiny_flags, "--set", "epochs=2", "--metrics", FEW_METRICS, "--out", tmp_path]
    code, _, err = commands.run("run", "--models", ",".join(LOSSES), *flags, paths=[site])
    assert code == 0, err
    rows = bench.load_results(tmp_path)
    rows = rows[rows["metric"] == "firing_rate"]
    assert set(LOSSES) <= set(rows["model"][rows["status"] == "ok"])
    for name, losses in LOSSES.items():
        (history,) = tmp_path.glob(f"cells/{name}-*/training.json")
        epochs = json.loads(history.read_text(encoding="utf-8"))["epochs"]
        assert [set(epoch["losses"]) for epoch in epochs] == losses


@needs_sinabs
def test_the_neuron_of_sinabs_is_exact(site):
    code, out, err = commands.run("check", "backend", "sinabs", paths=[site])
    assert code == 0, out + err
    assert out.rstrip().endswith("Verdict: exact.")


@needs_sinabs
def test_a_model_has_the_same_rows_on_sinabs_as_on_the_equations(site, tiny_flags, tmp_path):
    flags = [*tiny_flags, "--metrics", FEW_METRICS, "--out", tmp_path]
    backends = ["--backends", "reference,sinabs"]
    code, _, err = commands.run("run", "--models", "esvae", *backends, *flags, paths=[site])
    assert code == 0, err
    rows = bench.load_results(tmp_path)
    rows = rows[(rows["model"] == "esvae") & (rows["status"] == "ok")]
    values = {name: list(part["value"]) for name, part in rows.groupby("backend")}
    assert values["sinabs"] == values["reference"]
    assert len(values["sinabs"]) > 20


@pytest.mark.full
def test_the_notebook_runs_and_shows_a_table_and_two_figures(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("IPYTHONDIR", os.fspath(tmp_path / "ipython"))
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    place = {"metadata": {"path": os.fspath(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=commands.PATIENCE, resources=place).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output["data"].keys() for output in outputs if "data" in output]
    assert sum("image/png" in kinds for kinds in shown) == 2
    results = [output["data"] for output in outputs if output["output_type"] == "execute_result"]
    (page,) = (data["text/html"] for data in results if "text/html" in data)
    assert all(text in page for text in ("ann_vae", "esvae", "PSNR", "firing rate"))
