"""The scale of Fréchet distances: rows of real images and of noise, and what reports make of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from contexts import cell_context
from tiny import TINY

import bench
from bench.api import prepare
from bench.datasets.batches import to_unit_range
from bench.execution.dataset_cell import pixel_noise, real_images
from bench.metrics.extractors.extractor import Extractors
from bench.metrics.frechet import frechet_distance
from bench.protocol import load_protocol
from bench.report.distance_scale import distance_scales
from bench.request import RunRequest
from bench.store.run_directory import frame

NAMES = ["real_images", "pixel_noise"]


def scale_cells(**asked):
    cells = prepare(RunRequest(**asked)).plan.cells
    return [cell for cell in cells if cell.kind == "dataset"]


def greys(n, low=60, high=190, seed=0):
    """uint8 images whose pixels have means and spreads of their own, far from black and white."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randint(low, high, (1, 4, 4), generator=generator)
    spread = torch.randint(1, 30, (1, 4, 4), generator=generator)
    values = centre + spread * torch.randn(n, 1, 4, 4, generator=generator)
    return values.round().clamp(0, 255).to(torch.uint8)


def context(train, *settings, test=None):
    protocol = load_protocol("smoke", settings).resolve("m", "d")
    here = cell_context(protocol, train)
    return here if test is None else replace(here, test_images=test)


# The images


def test_noise_has_the_mean_and_the_variance_of_each_pixel():
    images = greys(3000)
    noise = pixel_noise(context(images, "generated_images=20000")).double()
    values = to_unit_range(images).double()
    assert noise.shape == (20000, 1, 4, 4)
    error = values.std(0) / 20000**0.5
    assert ((noise.mean(0) - values.mean(0)).abs() < 5 * error).all()
    np.testing.assert_allclose(noise.std(0), values.std(0), rtol=0.03)
    pixels = noise.flatten(1).numpy().T
    assert np.abs(np.corrcoef(pixels) - np.eye(16)).max() < 0.05


def test_noise_is_clipped_the_same_in_every_call_and_follows_constant_pixels():
    images = torch.zeros(40, 1, 4, 4, dtype=torch.uint8)
    images[::2, :, 0] = 255
    noise = pixel_noise(context(images, "generated_images=50"))
    assert noise.min() == -1
    assert noise.max() == 1
    assert (noise[:, :, 1:] == -1).all()
    assert noise[:, :, 0].unique().numel() > 50
    assert torch.equal(noise, pixel_noise(context(images, "generated_images=50")))


def test_real_images_are_drawn_from_the_split_that_is_not_the_reference():
    train, test = greys(30), greys(20, seed=1)
    drawn = real_images(context(train, "generated_images=12", test=test))
    assert len(drawn) == 12
    assert all((train == image).flatten(1).all(1).any() for image in drawn)
    other = real_images(context(train, "reference_split=train", test=test))
    assert torch.equal(other, test)


# The cells


def test_a_dataset_has_one_pair_of_cells_for_all_models_and_seeds():
    cells = scale_cells(seeds=[0, 1])
    assert [cell.model for cell in cells] == NAMES
    more = scale_cells(settings=["generated_images=77"])
    assert not {cell.key for cell in cells} & {cell.key for cell in more}
    other = scale_cells(settings=["learning_rate=0.1"])
    assert {cell.key for cell in cells} == {cell.key for cell in other}
    assert scale_cells(metrics="psnr,kid,fad_infinity") == []


def test_their_rows_are_the_distances_of_these_images(tmp_path):
    settings = [*TINY, "generated_images=100"]
    asked = {"models": "ann_vae", "metrics": "fad", "settings": settings, "out": tmp_path / "run"}
    rows = bench.run(**asked)
    own = rows[(rows["kind"] == "dataset") & (rows["status"] == "ok")].set_index("model")
    assert list(own.index) == NAMES
    assert list(own["n"]) == [64, 100]  # There are 64 training images.
    assert (own["ci_low"] < own["value"]).all()
    assert (own["value"] < own["ci_high"]).all()
    judged = rows[(rows["kind"] == "model") & (rows["metric"] == "fad")].iloc[0]
    assert set(own["extractor_sha256"]) == {judged["extractor_sha256"]}
    prepared = prepare(RunRequest(**asked))
    cell = next(cell for cell in prepared.plan.cells if cell.model == "real_images")
    data = prepared.plan.datasets["digits"].load(cell.resolved)
    here = cell_context(
        cell.resolved,
        torch.from_numpy(data.train.images),
        dataset="digits",
        fingerprint=cell.info.fingerprint,
        test_images=torch.from_numpy(data.test.images),
        resources=prepared.context.resources,
    )
    extractors = Extractors(here)
    reference = extractors.reference("autoencoder").pool.double().numpy()
    for name, images in {
        "real_images": to_unit_range(here.train_images),
        "pixel_noise": pixel_noise(here),
    }.items():
        pool = extractors.get("autoencoder")(images).pool.double().numpy()
        expected = frechet_distance(
            pool.mean(0), np.cov(pool.T), reference.mean(0), np.cov(reference.T)
        )
        assert own.loc[name, "value"] == pytest.approx(expected, rel=1e-4), name
    again = bench.run(**asked)
    assert set(again["run_id"]) == set(rows["run_id"])


def test_a_scale_of_another_distance_can_be_asked_for_later(tmp_path):
    asked = {"models": "ann_vae", "settings": TINY, "out": tmp_path / "run"}
    first = bench.run(metrics="fad", **asked)
    own = first[first["kind"] == "dataset"].set_index(["model", "metric"])["status"]
    assert own["pixel_noise", "fad_official"] == "not_asked"
    second = bench.run(metrics="fad_official", **asked)
    own = second[second["kind"] == "dataset"].set_index(["model", "metric"])["status"]
    assert own["pixel_noise", "fad_official"] == own["pixel_noise", "fad"] == "ok"


# What reports make of it


@pytest.mark.parametrize(
    ("floor", "ceiling", "usable"),
    [(1.0, 10.0, True), (1.0, 9.9, False), (0.0, 0.0, False), (0.0, 0.1, True), (2.0, 1.0, False)],
)
def test_a_distance_is_usable_if_noise_is_ten_times_as_far(floor, ceiling, usable):
    row = {"metric": "fad", "dataset": "d", "kind": "dataset", "status": "ok"}
    ends = dict(zip(NAMES, (floor, ceiling), strict=True))
    rows = frame([row | {"model": name, "value": value} for name, value in ends.items()])
    (scale,) = distance_scales(rows)
    assert (scale.metric, scale.dataset, scale.usable) == ("fad", "d", usable)


def test_one_end_alone_or_of_another_autoencoder_gives_no_scale():
    row = {"metric": "fad", "dataset": "d", "kind": "dataset", "status": "ok", "value": 1.0}
    real, noise = (row | {"model": name, "extractor_sha256": "a"} for name in NAMES)
    assert list(distance_scales(frame([real]))) == []
    assert list(distance_scales(frame([real, noise | {"extractor_sha256": "b"}]))) == []
    assert list(distance_scales(frame([real, noise | {"kind": "model"}]))) == []
    assert len(list(distance_scales(frame([real, noise])))) == 1


@pytest.mark.usefixtures("one_plot")
def test_an_autoencoder_of_64_images_makes_the_distance_unusable(bench_cli, tiny_flags, tmp_path):
    out = tmp_path / "run"
    flags = ["--models", "ann_vae", *tiny_flags, "--metrics", "fad", "--out", out]
    code, told, _ = bench_cli("run", *flags)
    assert code == 0
    assert "unusable: fad on digits: 0.0" in told
    assert bench_cli("report", out, "--format", "md")[0] == 0
    page = (out / "report.md").read_text()
    assert "digits: fad is unusable, because noise is less than 10 times as far" in page
    assert "| fad | digits |" in page
    assert bench_cli("report", out)[0] == 0
    assert "fad is unusable" in (out / "report.html").read_text()
