"""Scores of images that exist, and samples that are written for others."""

import json
import re
import shutil
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from tiny import FEW_METRICS, SLOW_METRICS, TINY

import bench
from bench.datasets.digits import Digits
from bench.errors import BenchError
from bench.protocol import load_protocol
from bench.system.checksums import SummedFolder

COUNT = 10
# What is measured of images alone.
NEEDS_A_MODEL = {"parameter_count", "training_throughput", "sampling_throughput", "peak_memory"}
VARYING = ["model", "model_version", "backend", "cell_key", "run_id", "created_at", "duration_s"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a tiny ESVAE."""
    out = tmp_path_factory.mktemp("trained") / "run"
    rows = bench.run("esvae", settings=TINY, skip=SLOW_METRICS, out=out)
    return out, rows[rows["kind"] == "model"]


@pytest.fixture
def scored(tmp_path):
    """Scores images under the tiny protocol."""

    def scored(images, out="scores", **options):
        asked = {"settings": TINY, "skip": SLOW_METRICS, "out": tmp_path / "scored" / out}
        rows = bench.score(images, **asked, **options)
        return rows[rows["kind"] == "model"]

    return scored


def drawn(count=COUNT, channels=()):
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, *channels), dtype=np.uint8)


def numbers(rows):
    """The values of rows about generated images, by everything that names them."""
    rows = rows[(rows["split"] == "generated") & (rows["status"] == "ok")]
    rows = rows[~rows["metric"].isin(NEEDS_A_MODEL) & ~rows["unit"].eq("images/s")]
    names = ["metric", "layer", "time_step", "noise_kind", "noise_level"]
    return rows.set_index(names)[["value", "ci_low", "ci_high", "n", "extractor_sha256"]]


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_samples_of_a_run_have_its_scores_to_the_last_digit(suffix, trained, scored, tmp_path):
    out, rows = trained
    file = tmp_path / f"gen{suffix}"
    bench.api.sample(out, model="esvae", n=COUNT, out=file)
    found = numbers(scored(file, image_range=(-1, 1)))
    assert set(found.reset_index()["metric"]) >= {"fad", "fad_official"}
    pd.testing.assert_frame_equal(found, numbers(rows).loc[found.index], check_exact=True)


def test_samples_in_bytes_have_one_score_in_any_file(trained, bench_cli, tmp_path, tiny_flags):
    out, _ = trained
    found = []
    for name in ("gen.npz", "folder"):
        samples, scores = tmp_path / name, tmp_path / f"scores-{name}"
        code, told, _ = bench_cli("sample", out, "--model", "esvae", "--n", COUNT, "--out", samples)
        assert (code, told) == (0, f"{COUNT} images in {samples}\n")
        code, told, err = bench_cli(
            "score", samples, "--name", "mine", *tiny_flags, "--metrics", "fad*", "--out", scores
        )
        assert (code, err) == (0, "")
        assert re.search(r"mine external digits .* seed 0: ok in", told)
        rows = bench.load_results(scores)
        found.append(rows[rows["kind"] == "model"])
    arrays = np.load(tmp_path / "gen.npz")
    assert arrays.files == ["arr_0"]
    assert (arrays["arr_0"].shape, arrays["arr_0"].dtype) == ((COUNT, 32, 32, 1), np.uint8)
    assert len(list((tmp_path / "folder").glob("*.png"))) == COUNT
    pd.testing.assert_frame_equal(numbers(found[0]), numbers(found[1]), check_exact=True)
    assert found[0]["cell_key"].unique() == found[1]["cell_key"].unique()


def test_images_stand_beside_trained_models(trained, bench_cli, tiny_flags, tmp_path):
    out, before = trained
    file = tmp_path / "mine.npz"
    np.savez(file, arr_0=drawn(), arr_1=np.zeros(COUNT))
    bench.score(file, settings=TINY, metrics=FEW_METRICS, out=out)
    rows = bench.load_results(out)
    assert set(rows["backend"]) == {"fused", "torch", "external"}
    assert len(rows) > len(before)
    for command in (
        ["report", out, "--format", "md"],
        ["plot", out, "metric_by_model", "samples", "--format", "svg"],
        ["results", out],
        ["table", "esvae-table-1", out],
    ):
        code, told, err = bench_cli(*command)
        assert code == 0, err
    assert "| mine | external |" in (out / "report.md").read_text(encoding="utf-8")
    for name in ("metric_by_model", "samples"):
        assert "mine" in set(pd.read_csv(out / "plots" / f"{name}.csv")["model"])
    code, told, _ = bench_cli("compare", out, out)
    assert code == 0, told


def test_without_a_model_there_is_no_throughput(scored):
    rows = scored(drawn(), name="mine").set_index("metric")
    for metric in NEEDS_A_MODEL | {"firing_rate", "energy", "training_graph_replays"}:
        row = rows.loc[metric]
        assert row["status"] == "not_applicable"
        assert "the images were given, without a model" in row["reason"]
    assert rows.loc["ssim", "reason"] == "no reconstructions were given"
    counted = rows[(rows["status"] == "ok") & (rows["split"] == "generated")]
    assert counted["n"].notna().all()
    assert set(rows["backend"]) == {"external"}
    assert rows["epoch"].isna().all()
    assert rows["train_images"].isna().all()


def test_reconstructions_are_compared_with_the_test_set_in_its_order(scored, digits_test_set):
    asked = {"name": "a", "metrics": "reconstruction_loss,ssim"}
    perfect = scored(drawn(), reconstructions=digits_test_set, **asked).set_index("metric")
    assert perfect.loc["reconstruction_loss", "value"] == 0
    assert perfect.loc["ssim", "value"] == pytest.approx(1)
    assert perfect.loc["ssim", "n"] == len(digits_test_set)
    mixed = scored(drawn(), "b", reconstructions=digits_test_set[::-1], **asked)
    mixed = mixed.set_index("metric")
    assert mixed.loc["reconstruction_loss", "value"] > 0.1


@pytest.fixture
def digits_test_set(tmp_path):
    """The test images that the tiny protocol scores."""
    from bench.datasets.dataset_contract import describe, load_images
    from bench.datasets.resolve import open_dataset
    from bench.protocol import load_protocol

    dataset = open_dataset("digits", tmp_path)
    protocol = load_protocol("smoke", TINY).resolve("a", "digits")
    return load_images(dataset, describe(dataset), protocol).test.images


def test_the_same_images_again_are_not_scored_again(scored, tmp_path):
    asked = {"name": "mine", "metrics": FEW_METRICS}
    first = scored(drawn(), **asked)
    started = time.monotonic()
    again = scored(drawn(), **asked)
    assert time.monotonic() - started < 5
    assert list(again["created_at"]) == list(first["created_at"])
    changed = drawn()
    changed[0, 0, 0] ^= 1
    assert set(scored(changed, **asked)["cell_key"]).isdisjoint(first["cell_key"])


LAYOUTS = {
    "grey": lambda images: images,
    "channel last": lambda images: images[..., None],
    "channel first": lambda images: images[:, None],
    "integers": lambda images: images.astype(np.int64),
    "tensor": torch.from_numpy,
}


def test_layouts_and_types_of_the_same_images_are_one_cell(scored):
    asked = {"name": "mine", "metrics": "autoencoder_vendi_score"}
    keys = {name: set(scored(lay(drawn()), **asked)["cell_key"]) for name, lay in LAYOUTS.items()}
    assert len(keys["grey"]) == 1
    assert keys == dict.fromkeys(LAYOUTS, keys["grey"])


def test_floats_are_mapped_by_the_range_that_is_said(scored, tmp_path):
    unit = drawn().astype(np.float64) / 255
    np.save(tmp_path / "unit.npy", unit)
    save_file({"images": (unit * 2 - 1).astype(np.float32)}, tmp_path / "signed.safetensors")
    asked = {"name": "a", "metrics": "fad*"}
    plain = numbers(scored(drawn(), "plain", **asked))["value"]
    for name, value_range in (("unit.npy", (0, 1)), ("signed.safetensors", "-1,1")):
        rows = scored(tmp_path / name, name, image_range=value_range, **asked)
        pd.testing.assert_series_equal(numbers(rows)["value"], plain, rtol=1e-4, atol=1e-6)


def pickled(folder):
    np.save(folder / "gen.npy", np.array([{}], dtype=object), allow_pickle=True)
    return folder / "gen.npy"


def saved(array, name="gen.npy"):
    def write(folder):
        np.save(folder / name, array)
        return folder / name

    return write


def zipped(**arrays):
    def write(folder):
        np.savez(folder / "gen.npz", **arrays)
        return folder / "gen.npz"

    return write


def pictures(*images, **how):
    def write(folder):
        (folder / "gen").mkdir()
        for number, image in enumerate(images):
            image.save(
                folder / "gen" / f"{number}.{how.get('suffix', 'png')}", **how.get("more", {})
            )
        return folder / "gen"

    return write


def grey(size=32):
    return Image.fromarray(drawn(1)[0]).resize((size, size))


def empty(folder):
    (folder / "gen").mkdir()
    return folder / "gen"


def words(folder):
    (folder / "gen.npz").write_text("not a zip")
    return folder / "gen.npz"


TRANSPARENT = Image.fromarray(np.full((32, 32, 4), 100, np.uint8), "RGBA")
BAD = {
    "nothing": (lambda folder: folder / "gen.npz", "does not exist"),
    "empty folder": (empty, "holds no images: expected PNG, JPEG"),
    "words": (words, "cannot be read"),
    "pickle": (pickled, r"Python objects are not read: they can run code"),
    "other key": (zipped(faces=drawn()), "has the keys faces: expected exactly one of arr_0"),
    "two keys": (zipped(arr_0=drawn(), images=drawn()), "expected exactly one of arr_0"),
    "no images": (saved(np.zeros((0, 32, 32), np.uint8)), r"holds shape \(0, 32, 32"),
    "flat": (saved(drawn().reshape(COUNT, -1)), r"holds shape \(10, 1024\); expected"),
    "two layouts": (saved(np.zeros((2, 3, 32, 3), np.uint8)), "and only one of them"),
    "floats": (saved(drawn() / 255), r"say --range 0,1 \(in Python image_range=\(0, 1\)\)"),
    "nan": (saved(np.full((2, 32, 32), np.nan)), "non-finite values"),
    "nearly black": (saved(drawn() // 200), "nearly black in 0..255"),
    "nearly black files": (pictures(Image.fromarray(drawn(1)[0] // 200)), "nearly black in 0..255"),
    "size": (saved(drawn()[:, :28, :28]), r"1 channels, 28x28: digits is scored with 1, 32x32"),
    "colour": (saved(drawn(channels=(3,))), "holds images of 3 channels"),
    "mixed sizes": (pictures(grey(), grey(30)), "1.png is 30x30, and .*0.png is 32x32"),
    "transparent": (pictures(TRANSPARENT), "is transparent in places"),
    "cmyk": (pictures(Image.new("CMYK", (32, 32)), suffix="jpg"), "has PIL's mode CMYK"),
    "16 bits": (pictures(Image.new("I;16", (32, 32))), "bit"),
    "animated": (
        pictures(grey(), suffix="gif", more={"save_all": True, "append_images": [grey(31)]}),
        "has 2 frames",
    ),
    "suffix": (lambda folder: ((folder / "gen.txt").write_text("") and None) or folder / "gen.txt",
               "expected a folder of images, or a file .npz"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_images_are_one_clear_line_and_nothing_is_written(case, bench_cli, tmp_path):
    write, expected = BAD[case]
    out = tmp_path / "run"
    code, told, err = bench_cli("score", write(tmp_path), "--out", out)
    assert (code, told) == (2, "")
    assert err.count("\n") == 1
    assert re.search(expected, err), err
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"image_range": (-1, 1)}, "expected values in the given range -1..1"),
        ({"image_range": "1,0"}, "Range '1,0': expected two numbers"),
        ({"reconstructions": drawn(3)}, "holds 3 reconstructions: digits has 24 test images"),
        ({"name": "a b"}, "Name 'a b': expected letters"),
        ({"name": None}, "Images in memory need a name"),
        ({"dataset": "nothing"}, "Unknown dataset 'nothing'"),
        ({"seed": -1}, "expected whole numbers from 0"),
    ],
)
def test_a_mistake_in_the_request_is_told(options, expected, scored, tmp_path):
    images = drawn() / 100 if options.get("image_range") == (-1, 1) else drawn()
    with pytest.raises(BenchError, match=re.escape(expected)):
        scored(images, **{"name": "mine", **options})
    assert not (tmp_path / "scored").exists()


def test_no_images_are_refused_with_a_range_too(scored):
    with pytest.raises(BenchError, match=r"holds shape \(0, 32, 32\)"):
        scored(np.zeros((0, 32, 32)), name="mine", image_range=(0, 1))


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, bench_cli):
    file = saved(drawn())(tmp_path)
    load = np.load

    def changing(path, **options):
        array = load(path, **options)
        with file.open("ab") as opened:
            opened.write(b"more")
        return array

    monkeypatch.setattr(np, "load", changing)
    code, _, err = bench_cli("score", file, "--out", tmp_path / "run")
    assert code == 2
    assert "changed while it was read" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", "fsvae"], "has no trained model with model fsvae; it has: esvae fused digits"),
        (["--model", "esvae", "--seed", "3"], "with model esvae, seed 3"),
        (["--model", "esvae", "--out", "gen.txt"], "gen.txt: expected a file .npz"),
        (["--model", "esvae", "--n", "0"], "0 is not in the range"),
    ],
)
def test_a_mistake_in_sampling_is_told(arguments, expected, trained, bench_cli, tmp_path):
    given = ["--n", "3", "--out", tmp_path / "gen.npz", *arguments]
    code, _, err = bench_cli("sample", trained[0], *given)
    assert code == 2
    assert expected in " ".join(err.split())
    assert not (tmp_path / "gen.npz").exists()


@pytest.mark.parametrize("change", ["code", "file"])
def test_a_model_of_another_version_is_not_sampled(
    change, trained, bench_cli, tmp_path, monkeypatch
):
    """Its samples would not be the run's."""
    out = tmp_path / "run"
    shutil.copytree(trained[0], out)
    if change == "code":
        monkeypatch.setattr(bench.registry.models.load("esvae"), "version", "2")
    else:
        (cell,) = out.glob("cells/esvae*")
        facts = json.loads((cell / "cell.json").read_text())
        facts["seed"] = 5
        with SummedFolder(cell).write("cell.json") as file:
            file.write(json.dumps(facts).encode())
    code, _, err = bench_cli(
        "sample", out, "--model", "esvae", "--n", "3", "--out", tmp_path / "gen.npz"
    )
    assert code == 2
    assert "was made by another version of the suite or of the model" in err
    assert not (tmp_path / "gen.npz").exists()


def test_samples_replace_nothing(trained, bench_cli, tmp_path):
    file = tmp_path / "gen.npz"
    file.write_text("mine")
    code, _, err = bench_cli("sample", trained[0], "--model", "esvae", "--n", "3", "--out", file)
    assert code == 2
    assert "exists: choose another path, or delete it" in err
    assert file.read_text() == "mine"


def test_copies_of_training_images_are_told_and_shown(scored, tmp_path):
    protocol = load_protocol("smoke", TINY).resolve("external", "digits")
    trained = Digits(tmp_path).load(protocol).train.images
    rows = scored(trained[:COUNT], name="given", metrics="autoencoder_*")
    values = rows[rows["status"] == "ok"].set_index("metric")["value"]
    assert values["autoencoder_authenticity"] == 0
    assert values["autoencoder_training_distance_ratio"] == 0
    assert values["autoencoder_data_copying_test"] < -3
    assert 1 < values["autoencoder_vendi_score"] <= COUNT
    (file,) = tmp_path.glob("scored/scores/cells/*/nearest.npz")
    arrays = np.load(file, allow_pickle=False)
    np.testing.assert_array_equal(arrays["nearest"], trained[:COUNT])
    np.testing.assert_array_equal(arrays["samples"], trained[:COUNT])
    assert not arrays["distances"].any()
    assert arrays["extractor"] == "autoencoder"


def test_the_nearest_training_images_stay_if_other_metrics_are_asked_for_later(scored, tmp_path):
    scored(drawn(), name="given", metrics="reconstruction_loss,fad")
    assert not list(tmp_path.glob("scored/scores/cells/*/nearest.npz"))
    scored(drawn(), name="given", metrics="autoencoder_authenticity")
    (file,) = tmp_path.glob("scored/scores/cells/*/nearest.npz")
    written = file.stat().st_mtime_ns
    scored(drawn(), name="given", metrics="fad_official")
    assert file.stat().st_mtime_ns == written
