import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_features import normal, observed
from scipy.stats import entropy

from bench import registry
from bench.metrics.vendi import AutoencoderVendiScore, VendiScore, vendi_score


def of_kernel(features):
    """The score from all N eigenvalues of the kernel, by another solver and entropy."""
    vectors = features.double().numpy()
    lengths = np.sqrt(np.square(vectors).sum(1))
    kernel = vectors @ vectors.T / np.outer(lengths, lengths)
    return np.exp(entropy(np.linalg.svd(kernel / len(kernel), compute_uv=False)))


@pytest.mark.parametrize(("n", "width"), [(30, 50), (50, 30), (40, 40), (1200, 5)])
def test_the_score_is_of_the_kernel_in_both_forms(n, width):
    features = normal(0, n, width) + 0.5
    found = observed(VendiScore, features)
    assert found.value == pytest.approx(of_kernel(features), rel=1e-9)
    assert found.n == n


@pytest.mark.parametrize("width", [20, 64])
def test_orthogonal_images_count_each_and_equal_ones_once(width):
    scale = torch.arange(1, 21)[:, None]
    assert vendi_score(scale * torch.eye(20, width))[0] == pytest.approx(20)
    repeated = torch.eye(4, width).repeat(5, 1)
    assert vendi_score(repeated)[0] == pytest.approx(4)
    assert vendi_score(scale * torch.ones(1, width)) == (pytest.approx(1), None)
    narrow = torch.ones(20, 3) * scale
    assert vendi_score(narrow)[0] == pytest.approx(1)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_two_directions_have_the_exponential_of_their_entropy(share):
    counts = round(20 * share), 20 - round(20 * share)
    features = torch.cat([torch.eye(2)[[i]].repeat(count, 1) for i, count in enumerate(counts)])
    expected = np.exp(-share * np.log(share) - (1 - share) * np.log(1 - share))
    assert vendi_score(features)[0] == pytest.approx(expected)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 20), st.floats(0.1, 10))
def test_it_lies_from_1_to_n_and_ignores_order_and_length(seed, n, width, scale):
    features = normal(seed, n, width)
    value, _ = vendi_score(features)
    assert 1 - 1e-9 <= value <= min(n, width) + 1e-9
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert vendi_score(scale * features[order])[0] == pytest.approx(value, rel=1e-5)
    assert vendi_score(features.repeat(2, 1))[0] == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(("n", "width"), [(63, 8), (63, 80)])
def test_its_interval_is_that_of_a_jackknife_over_ten_groups(n, width):
    features = normal(0, n, width)
    found = observed(VendiScore, features)
    left_out = [of_kernel(features[torch.arange(n) % 10 != group]) for group in range(10)]
    error = np.sqrt(0.9 * np.square(left_out - np.mean(left_out)).sum())
    assert found.ci_low == pytest.approx(found.value - 1.96 * error, rel=1e-9)
    assert found.ci_high == pytest.approx(found.value + 1.96 * error, rel=1e-9)


@pytest.mark.parametrize("width", [8, 150])
def test_its_jackknife_is_as_wide_as_the_score_varies(width):
    lengths = torch.logspace(0, -1.5, width)
    found = [observed(VendiScore, normal(seed, 100, width) * lengths + 0.05) for seed in range(60)]
    spread = np.std([one.value for one in found], ddof=1)
    width_found = np.mean([one.ci_high - one.ci_low for one in found]) / (2 * 1.96)
    assert width_found == pytest.approx(spread, rel=0.3)


def test_few_images_have_no_interval_and_none_of_zeros_a_score():
    found = observed(VendiScore, normal(0, 9))
    assert (found.status, found.ci_low) == ("ok", None)
    features = normal(0, 12)
    features[[2, 5]] = 0
    found = observed(VendiScore, features)
    assert (found.status, found.value) == ("not_applicable", None)
    assert found.reason.startswith("2 of 12 generated images have features that are all zero")


def test_it_is_registered_for_inception_and_for_fads_autoencoder():
    assert registry.metrics.load("vendi_score") is VendiScore
    assert registry.metrics.load("autoencoder_vendi_score") is AutoencoderVendiScore
    assert AutoencoderVendiScore.extractors == ("autoencoder",)
