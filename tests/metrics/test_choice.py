"""Choice of the metrics that a run computes, and what it says of the others."""

import numpy as np
import pandas as pd
import pytest
from tiny import SLOW_METRICS, TINY

import bench
from bench.errors import BenchError
from bench.metrics.choice import PRESETS, chosen_metrics
from bench.protocol import Override, load_protocol
from bench.registry import metrics


def run(out, asked, skip=(), settings=(), **more):
    return bench.run(
        models=["ann_vae"], settings=[*TINY, *settings], out=out, metrics=asked, skip=skip, **more
    )


def by_status(rows, kind="model"):
    rows = rows[rows["kind"] == kind]
    return {name: set(group["metric"]) for name, group in rows.groupby("status")}


def values(rows):
    rows = rows[(rows["status"] == "ok") & (rows["model"] == "ann_vae")]
    identity = ["metric", "split", "layer", "noise_kind", "noise_level", "epoch_selection"]
    return rows.set_index(identity)["value"].sort_index()


def test_what_was_not_asked_says_so_and_can_be_asked_later(tmp_path, tiny_run):
    first = run(tmp_path / "run", "psnr,reconstruction_*", skip="*_official,*_gain,*_step")
    asked = {"psnr", "reconstruction_loss"}
    assert by_status(first)["ok"] == asked
    assert by_status(first)["not_asked"] == set(metrics.names()) - asked
    assert first.loc[first["status"] == "not_asked", "reason"].str.contains("--metrics").all()
    (record,) = tmp_path.glob("run/cells/ann_vae*/training.json")
    trained = record.stat().st_mtime_ns
    second = run(tmp_path / "run", ["fad", "psnr"])
    assert by_status(second)["ok"] == {*asked, "fad"}
    assert record.stat().st_mtime_ns == trained
    kept = second[second["metric"].isin(asked)]
    assert kept["created_at"].tolist() == first[first["metric"].isin(asked)]["created_at"].tolist()
    third = run(tmp_path / "run", "all")
    assert "not_asked" not in by_status(third)
    assert record.stat().st_mtime_ns == trained
    _, whole = tiny_run
    timed = ["training_throughput", "sampling_throughput", "peak_memory"]
    found, expected = (values(rows).drop(timed) for rows in (third, whole))
    pd.testing.assert_series_equal(found, expected, rtol=0, atol=0)
    assert set(first["cell_key"]) < set(third["cell_key"])


def test_fads_autoencoder_is_trained_only_if_a_metric_needs_it(tmp_path):
    rows = run(tmp_path / "without", "fast", skip="fad,autoencoder_*,*throughput")
    assert set(rows["kind"]) == {"model"}
    gain = ["epoch_selection=best_test_loss"]
    rows = run(tmp_path / "gain", "fad_selection_gain", settings=gain)
    assert by_status(rows)["ok"] == {"fad_selection_gain"}
    best = ["epoch_selection=best_per_metric"]
    rows = run(tmp_path / "best", "psnr", settings=best)
    assert set(rows["kind"]) == {"model", "extractor"}
    assert by_status(rows)["ok"] == {"psnr"}
    later = run(tmp_path / "best", "psnr,fad", settings=best)
    (log,) = tmp_path.glob("best/cells/ann_vae*/cell.log")
    assert log.read_text().count("epoch 1 of 1") == 1
    assert by_status(later)["ok"] == {"psnr", "fad"}


def test_without_its_metrics_fads_autoencoder_is_not_trained(tmp_path):
    reads_it = "fad*,autoencoder_*,frechet_distance_by_time_step"
    rows = run(tmp_path / "run", "all", f"{reads_it},{SLOW_METRICS}")
    assert set(rows["kind"]) == {"model", "dataset"}
    gain = rows[rows["metric"] == "fid_selection_gain"]
    assert gain["reason"].str.contains("keeps the last epoch only").all()
    whole = run(tmp_path / "run", "all", SLOW_METRICS)
    added = set(whole["cell_key"]) - set(rows["cell_key"])
    assert set(whole[whole["cell_key"].isin(added)]["kind"]) == {"extractor"}
    unasked = by_status(whole)["not_asked"] | by_status(whole, "dataset")["not_asked"]
    assert all(name.startswith("efficientnet") for name in unasked)


def test_the_gain_of_a_metric_needs_that_metric_alone(tmp_path):
    loss = "reconstruction_loss_selection_gain"
    settings = ["epoch_selection=best_test_loss"]
    rows = run(tmp_path / "run", loss, settings=settings)
    assert set(rows["kind"]) == {"model"}
    assert by_status(rows)["ok"] == {loss}
    both = run(tmp_path / "run", f"{loss},fad_selection_gain", settings=settings)
    assert set(both["kind"]) == {"model", "extractor"}
    assert by_status(both)["ok"] == {loss, "fad_selection_gain"}


def test_each_model_has_the_autoencoder_that_its_own_epochs_need(tmp_path):
    own = {"epoch_selection": "best_per_metric", "autoencoder_epochs": 2}
    best = Override(models=("esvae",), set=own)
    tiny = load_protocol("smoke", TINY)
    protocol = tiny.model_copy(update={"overrides": (*tiny.overrides, best)})
    rows = bench.run("ann_vae,esvae", protocol=protocol, metrics="psnr", out=tmp_path / "run")
    assert rows[rows["kind"] == "extractor"]["cell_key"].nunique() == 1


def test_images_that_exist_have_no_epochs_to_select(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 1, 32, 32), np.uint8)
    np.save(tmp_path / "images.npy", images)
    rows = bench.score(
        tmp_path / "images.npy",
        settings=[*TINY, "epoch_selection=best_per_metric"],
        metrics="kid",
        out=tmp_path / "run",
    )
    assert set(rows["kind"]) == {"model"}


def test_lost_weights_renew_what_was_computed_before(tmp_path):
    run(tmp_path / "run", "psnr,ssim")
    (weights,) = tmp_path.glob("run/cells/ann_vae*/weights-last.safetensors")
    weights.unlink()
    rows = run(tmp_path / "run", "reconstruction_loss")
    fresh = rows[rows["status"] == "ok"]
    assert set(fresh["metric"]) == {"psnr", "ssim", "reconstruction_loss"}
    assert fresh["run_id"].nunique() == 1


def test_a_failed_cell_says_what_was_not_asked(tmp_path, plugins):
    source = "from toys import Steady\n\n\nclass Broken(Steady):\n"
    source += "    def training_step(self, images, step):\n        raise ValueError('no')\n"
    plugins("plugin_broken", source, models={"broken": "plugin_broken:Broken"})
    rows = bench.run(models=["broken"], settings=TINY, out=tmp_path / "run", metrics="psnr")
    assert by_status(rows)["failed"] == {"psnr"}
    assert by_status(rows)["not_asked"] == set(metrics.names()) - {"psnr"}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_patterns_that_all_fit_something(preset):
    for pattern in PRESETS[preset]:
        assert chosen_metrics([pattern], [], metrics.names())


@pytest.mark.parametrize(
    ("asked", "skip", "message"),
    [
        ("psnrr", (), "No metric fits 'psnrr'. Did you mean psnr"),
        ("all", "fidd*", "No metric fits 'fidd*'."),
        ("psnr", "*", "No metric is left"),
        ("", (), "No metric is left"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(asked, skip, message, tmp_path):
    with pytest.raises(BenchError, match=message.replace("*", r"\*")):
        run(tmp_path / "run", asked, skip)
    assert not (tmp_path / "run").exists()


def test_the_command_line_takes_them_and_reports_tell(bench_cli, tiny_flags, tmp_path):
    out = tmp_path / "run"
    flags = ["--models", "ann_vae", *tiny_flags, "--out", out]
    code, told, err = bench_cli("run", *flags, "--metrics", "psnr", "--skip", "fid*")
    assert (code, err) == (0, "")
    assert f"not asked: {len(metrics.names()) - 1} of {len(metrics.names())} metrics" in told
    code, told, _ = bench_cli("run", *flags, "--dry-run", "--metrics", "psnr")
    assert "done" in told
    code, _, err = bench_cli("report", out, "--format", "md", "--out", tmp_path / "report.md")
    assert (code, err) == (0, "")
    page = (tmp_path / "report.md").read_text()
    assert "1 ok" in page
    assert "not asked" in page


def test_the_metrics_of_fads_autoencoder_are_not_counted(bench_cli, tiny_flags, tmp_path):
    flags = ["--models", "ann_vae", *tiny_flags, "--out", tmp_path / "run"]
    _, told, _ = bench_cli("run", *flags, "--metrics", "psnr,fad")
    assert f"not asked: {len(metrics.names()) - 2} of {len(metrics.names())} metrics" in told
