import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from sklearn.datasets import load_sample_image

from bench.metrics.metric import Batch, ModelFacts
from bench.metrics.reconstruction import (
    PSNR,
    SSIM,
    ImageMean,
    ReconstructionLoss,
    structural_similarities,
)
from bench.protocol import load_protocol
from bench.recording.training_record import TrainingRecord

FACTS = ModelFacts(0, 0, TrainingRecord((), {}, None), None)
METRICS = (ReconstructionLoss, PSNR, SSIM)


def observed(metric_class, images, originals, batch_size=7):
    metric = metric_class(load_protocol("smoke"))
    for cut in torch.arange(len(images)).split(batch_size):
        metric.update(Batch("test", images[cut], originals[cut], {}))
    (found,) = metric.compute(FACTS)
    assert found.split == "test"
    return found


def noisy(shape, seed, strength=0.3):
    generator = torch.Generator().manual_seed(seed)
    originals = torch.rand(shape, generator=generator) * 2 - 1
    noise = torch.randn(shape, generator=generator)
    return originals, (originals + strength * noise).clamp(-1, 1)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 23), batch_size=st.integers(1, 11), seed=st.integers(0, 99))
@pytest.mark.parametrize("metric", METRICS)
def test_neither_order_nor_batches_matter(metric, n, batch_size, seed):
    originals, images = noisy((n, 1, 12, 13), seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    whole = observed(metric, images, originals, n)
    cut = observed(metric, images[order], originals[order], batch_size)
    for field in ("value", "ci_low", "ci_high"):
        # SSIM comes from convolutions in float32.
        tolerance = 1e-5 if metric is SSIM else 1e-10
        assert getattr(cut, field) == pytest.approx(getattr(whole, field), abs=tolerance)
    assert cut.n == n


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30), batch_size=st.integers(1, 9))
def test_the_interval_is_the_means_normal_one(values, batch_size):
    mean = ImageMean()
    for batch in torch.tensor(values, dtype=torch.float64).split(batch_size):
        mean.update(batch)
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    expected = np.mean(values) - 1.96 * error, np.mean(values) + 1.96 * error
    assert mean.interval == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_interval_keeps_its_digits_where_the_mean_is_large():
    values = 1e6 + torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    mean = ImageMean()
    for batch in values.split(1):
        mean.update(batch)
    low, high = mean.interval
    assert high - low == pytest.approx(2 * 1.96 * values.std().item() / 2, rel=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_one_image_has_a_value_but_no_interval(metric):
    originals, images = noisy((1, 1, 16, 16), 0)
    found = observed(metric, images, originals)
    assert math.isfinite(found.value)
    assert (found.n, found.ci_low, found.ci_high) == (1, None, None)


@pytest.mark.parametrize("error", [2.0, 0.5, 0.01])
def test_psnr_of_a_constant_error(error):
    originals = torch.full((5, 3, 8, 8), -1.0, dtype=torch.float64)
    found = observed(PSNR, originals + error, originals)
    assert found.value == pytest.approx(20 * math.log10(2 / error), abs=1e-9)
    assert found.ci_low == pytest.approx(found.ci_high)


def test_psnr_averages_the_ratios_of_the_images_not_their_errors():
    originals = torch.zeros(2, 1, 4, 4)
    images = torch.stack([torch.full((1, 4, 4), 0.2), torch.full((1, 4, 4), 0.02)])
    assert observed(PSNR, images, originals).value == pytest.approx((20 + 40) / 2, abs=1e-5)


def test_psnr_without_any_error_is_a_reason_and_no_number():
    originals, images = noisy((6, 1, 8, 8), 0)
    images[2] = originals[2]
    found = observed(PSNR, images, originals)
    assert (found.value, found.status, found.n) == (None, "not_applicable", 6)
    assert found.reason == "infinite: 1 of 6 images are reconstructed without error"


@pytest.mark.parametrize("metric", METRICS)
def test_images_that_are_no_numbers_give_none(metric):
    originals, images = noisy((4, 1, 16, 16), 0)
    images[1, 0, 8, 8] = math.nan
    assert math.isnan(observed(metric, images, originals).value)


def photograph(channels):
    image = torch.tensor(load_sample_image("china.jpg")).permute(2, 0, 1)[:channels, ::8, ::8]
    return (image.double() / 255 * 2 - 1)[None]


def only_borders(images):
    """The images, with another value in their outermost pixels."""
    changed = -torch.ones_like(images)
    changed[..., 1:-1, 1:-1] = images[..., 1:-1, 1:-1]
    return changed


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "change",
    [
        only_borders,
        lambda images: images.flip(-1),
        lambda images: images * 0.5,
        lambda images: (images + 0.1 * torch.randn_like(images)).clamp(-1, 1),
        torch.zeros_like,
    ],
)
def test_ssim_agrees_with_scikit_image(channels, change):
    torch.manual_seed(0)
    photo = photograph(channels)
    dark = torch.full_like(photo, -1.0)
    dark[..., 20:30, 20:30] = 1.0
    for images in (photo, dark, photo[..., :11, :17]):
        changed = change(images)
        expected = structural_similarity(
            images[0].numpy(),
            changed[0].numpy(),
            data_range=2.0,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        found = structural_similarities(changed, images).item()
        assert found == pytest.approx(expected, abs=1e-4)


def test_ssim_of_identical_images_is_1():
    originals, _ = noisy((5, 3, 32, 32), 0)
    flat = torch.full_like(originals, -1.0)
    for images in (originals, flat):
        assert observed(SSIM, images, images).value == pytest.approx(1, abs=2e-5)


def test_ssim_is_symmetric():
    originals, images = noisy((5, 1, 16, 16), 3)
    there, back = observed(SSIM, images, originals), observed(SSIM, originals, images)
    assert there.value == pytest.approx(back.value, abs=1e-6)


def test_ssim_does_not_apply_to_images_smaller_than_its_window():
    originals, images = noisy((5, 1, 10, 16), 0)
    found = observed(SSIM, images, originals)
    assert (found.value, found.status) == (None, "not_applicable")
    assert "10x16" in found.reason


def test_a_run_has_all_three_with_intervals(vae_rows):
    rows = vae_rows
    for name in ("reconstruction_loss", "psnr", "ssim"):
        found = rows[rows["metric"] == name]
        assert len(found) == rows["cell_key"].nunique()
        assert set(found["status"]) == {"ok"}
        assert (found["ci_low"] < found["value"]).all()
        assert (found["value"] < found["ci_high"]).all()
        assert set(found["n"]) == {24}
