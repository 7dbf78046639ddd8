"""Scores of models whose weights exist."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import FEW_METRICS, SLOW_METRICS, TINY

import bench
from bench.errors import BenchError

NO_TRAINING = "its weights were given, without a training"
IDENTITY = ["metric", "split", "layer", "time_step", "noise_kind", "noise_level"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The rows and the weights of a tiny ESVAE and a tiny ANN VAE."""
    out = tmp_path_factory.mktemp("trained") / "run"
    rows = bench.run("esvae,ann_vae", settings=TINY, skip=SLOW_METRICS, out=out)
    files = {model: next(out.glob(f"cells/{model}-*/weights-*")) for model in ("esvae", "ann_vae")}
    return rows[rows["kind"] == "model"], files


def numbers(rows):
    """The values that a repetition gives again, by everything that names them."""
    counted = rows[(rows["status"] == "ok") & (rows["unit"] != "images/s")]
    counted = counted[~counted["metric"].isin(["peak_memory", "training_graph_replays"])]
    # Operations of a training step are counted where the model is trained.
    counted = counted[counted["split"] != "train"]
    return counted.set_index(IDENTITY)[["value", "ci_low", "ci_high", "n", "extractor_sha256"]]


@pytest.mark.parametrize(("model", "backend"), [("esvae", "fused"), ("ann_vae", "torch")])
def test_weights_of_a_run_have_its_scores_to_the_last_digit(model, backend, trained, tmp_path):
    rows, files = trained
    scored = bench.score(
        model=model,
        weights=files[model],
        name="mine",
        settings=TINY,
        skip=SLOW_METRICS,
        out=tmp_path / "scores",
    )
    scored = scored[scored["kind"] == "model"]
    assert set(scored["model"]) == {"mine"}
    assert set(scored["backend"]) == {backend}
    expected = numbers(rows[rows["model"] == model])
    pd.testing.assert_frame_equal(numbers(scored), expected, check_exact=True)
    untrained = scored[scored["metric"].isin(["training_throughput", "peak_memory"])]
    assert set(untrained["status"]) == {"not_applicable"}
    assert untrained["reason"].str.endswith(NO_TRAINING).all()
    assert scored[["epoch", "train_images"]].isna().all(axis=None)


def test_the_command_scores_weights_once_and_draws_samples_of_them(
    trained, bench_cli, tiny_flags, tmp_path
):
    _, files = trained
    out, weights = tmp_path / "scores", tmp_path / "official.safetensors"
    weights.write_bytes(files["esvae"].read_bytes())
    arguments = ["--model", "esvae", "--backend", "fused", "--weights", weights, "--out", out]
    arguments += ["--metrics", FEW_METRICS]
    code, told, err = bench_cli("score", *arguments, *tiny_flags)
    assert (code, err) == (0, "")
    assert "official fused digits" in told
    code, told, _ = bench_cli("score", *arguments, *tiny_flags)
    assert code == 0
    assert "already done" in told
    [facts] = [json.loads(path.read_text()) for path in out.glob("cells/official-*/cell.json")]
    assert facts["registered_model"] == "esvae"
    assert facts["weights"]["source"] == str(weights)
    drawn = []
    for run, model in ((out, "official"), (files["esvae"].parents[2], "esvae")):
        samples = tmp_path / f"{model}.npz"
        code, _, err = bench_cli("sample", run, "--model", model, "--n", 10, "--out", samples)
        assert (code, err) == (0, "")
        drawn.append(np.load(samples)["arr_0"])
    assert (drawn[0] == drawn[1]).all()


def test_other_weights_are_another_cell(trained, tmp_path):
    _, files = trained
    keys = set()
    for scale in (1.0, 0.5):
        tensors = load_file(files["ann_vae"])
        first = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
        tensors[first] = tensors[first] * scale
        save_file(tensors, tmp_path / "ann.safetensors")
        rows = bench.score(
            model="ann_vae",
            weights=[tmp_path / "ann.safetensors"],
            metrics="parameter_count",
            settings=TINY,
            out=tmp_path / "scores",
        )
        keys |= set(rows.loc[rows["kind"] == "model", "cell_key"])
    assert len(keys) == 2


def changed(tensors, change):
    """Weights with one mistake."""
    first = next(name for name, tensor in tensors.items() if tensor.ndim)
    if change == "missing":
        del tensors[first]
    elif change == "unknown":
        tensors["extra"] = torch.zeros(1)
    elif change == "of another shape":
        tensors[first] = torch.zeros(*tensors[first].shape, 2)
    else:
        tensors[first] = torch.full_like(tensors[first], torch.nan)
    return tensors


@pytest.mark.parametrize("change", ["missing", "unknown", "of another shape", "NaN or infinite"])
def test_weights_that_do_not_fit_are_told_before_anything_is_written(change, trained, tmp_path):
    _, files = trained
    save_file(changed(load_file(files["ann_vae"]), change), tmp_path / "bad.safetensors")
    out = tmp_path / "scores"
    with pytest.raises(BenchError, match=change):
        bench.score(model="ann_vae", weights=tmp_path / "bad.safetensors", settings=TINY, out=out)
    assert not out.exists()


def test_pickled_weights_are_not_read(tmp_path, bench_cli):
    file = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(1)}, file)
    code, _, err = bench_cli("score", "--model", "ann_vae", "--weights", file)
    assert code == 2
    assert "safetensors" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Nothing to score"),
        (["--model", "ann_vae"], "needs one file of weights"),
        (["--model", "ann_vae", "--weights", "none.safetensors"], "none.safetensors"),
        (["--model", "esvae", "--backend", "all", "--weights", "{weights}"], "on one backend"),
        (["--model", "esva", "--weights", "{weights}"], "esvae"),
        (["{weights}", "--model", "ann_vae", "--weights", "{weights}"], "not both"),
        (["--model", "ann_vae", "--weights", "{weights}", "--range", "0,1"], "range is for images"),
        (["--weights", "{weights}"], "Nothing to score"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, trained, bench_cli, tmp_path):
    _, files = trained
    filled = [text.format(weights=files["ann_vae"]) for text in arguments]
    out = tmp_path / "scores"
    code, _, err = bench_cli("score", *filled, "--out", out)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not out.exists()


def test_weights_of_half_precision_are_scored(trained, tmp_path):
    _, files = trained
    tensors = load_file(files["ann_vae"])
    half = {n: t.bfloat16() if t.is_floating_point() else t for n, t in tensors.items()}
    save_file(half, tmp_path / "half.safetensors")
    rows = bench.score(
        model="ann_vae",
        weights=tmp_path / "half.safetensors",
        metrics="parameter_count",
        settings=TINY,
        out=tmp_path / "scores",
    )
    assert rows.set_index("metric").loc["parameter_count", "status"] == "ok"


SEALED = """
import torch
from torch import nn
from bench import GenerativeModel


class Sealed(GenerativeModel):
    version = "1"
    capabilities = frozenset({"sample"})

    def __init__(self, image_shape, protocol, backend):
        super().__init__(image_shape, protocol, backend)
        self.layer = nn.Linear(2, torch.Size(image_shape).numel())

    def training_step(self, images, step):
        raise RuntimeError("its training is not public")

    def sample(self, n, generator):
        draws = torch.randn(n, 2, generator=generator, device=self.device)
        return self.layer(draws).tanh().view(n, *self.image_shape)
"""


def test_weights_of_a_model_that_cannot_train_are_scored(plugins, tmp_path):
    plugins("plugin_sealed", SEALED, models={"sealed": "plugin_sealed:Sealed"})
    weights = tmp_path / "sealed.safetensors"
    save_file({"layer.weight": torch.ones(1024, 2), "layer.bias": torch.zeros(1024)}, weights)
    asked = {"metrics": "synaptic_operations_dense", "settings": TINY, "out": tmp_path / "run"}
    rows = bench.score(model="sealed", weights=[weights], **asked)
    found = rows[rows["metric"] == "synaptic_operations_dense"]
    assert found[["split", "status", "value"]].values.tolist() == [["generated", "ok", 2048.0]]
