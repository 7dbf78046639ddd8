import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from bench.metrics.frechet import Moments, frechet_distance, moments, near_distances


def drawn(seed, n, dimensions, rank=None):
    """Features ``(n, dimensions)`` that span ``rank`` dimensions, off the origin."""
    generator = torch.Generator().manual_seed(seed)
    rank = dimensions if rank is None else rank
    loadings = torch.randn(rank, dimensions, generator=generator, dtype=torch.float64)
    return torch.randn(n, rank, generator=generator, dtype=torch.float64) @ loadings + seed % 7


def distance(features, others):
    a, b = moments(features), moments(others)
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def test_one_dimension_in_closed_form():
    # (m1 - m2)^2 + (s1 - s2)^2 for standard deviations 3 and 1
    found = frechet_distance(np.array([2.0]), np.array([[9.0]]), np.array([-1.0]), np.eye(1))
    assert found == pytest.approx(9 + 4, rel=1e-14)


@pytest.mark.parametrize("deviations", [(1.0, 2.0, 3.0), (1.0, 0.0, 3.0), (0.0, 0.0, 0.0)])
def test_commuting_covariances_in_closed_form(deviations):
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    one, other = np.array(deviations), np.array([0.5, 4.0, 1e-3])
    shift = np.array([1.0, -2.0, 0.5])
    found = frechet_distance(
        shift,
        rotation @ np.diag(one**2) @ rotation.T,
        np.zeros(3),
        rotation @ np.diag(other**2) @ rotation.T,
    )
    assert found == pytest.approx(shift @ shift + np.square(one - other).sum(), rel=1e-12)


def test_covariances_of_disjoint_directions_keep_their_traces():
    one, other = np.diag([4.0, 0, 0, 0]), np.diag([0, 0, 9.0, 1.0])
    assert frechet_distance(np.zeros(4), one, np.zeros(4), other) == pytest.approx(14, rel=1e-14)


def test_agrees_with_the_matrix_square_root():
    one, other = drawn(1, 200, 12), drawn(2, 300, 12)
    a, b = moments(one), moments(other)
    root = sqrtm(a.covariance @ b.covariance).real
    difference = a.mean - b.mean
    expected = difference @ difference + np.trace(a.covariance + b.covariance - 2 * root)
    assert distance(one, other) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank", [1, 5, 39])
def test_singular_covariances_are_as_good_as_any(rank):
    """Features that only use ``rank`` of 40 dimensions are as far apart as in those dimensions."""
    inner, others = drawn(3, 25, rank), drawn(4, 30, rank)
    seed = np.random.default_rng(0).standard_normal((40, rank))
    embedding = torch.from_numpy(np.linalg.qr(seed)[0].T)
    expected = distance(inner, others)
    assert distance(inner @ embedding, others @ embedding) == pytest.approx(expected, rel=1e-10)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 999), st.integers(2, 30), st.integers(2, 30), st.integers(1, 12))
def test_symmetric_and_not_negative(seed, n, m, rank):
    one, other = drawn(seed, n, 12, rank), drawn(seed + 1, m, 12)
    forth, back = distance(one, other), distance(other, one)
    assert forth >= 0
    assert forth == pytest.approx(back, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 999), st.integers(2, 30), st.integers(1, 12))
def test_zero_on_itself(seed, n, rank):
    features = drawn(seed, n, 12, rank)
    assert distance(features, features) <= 1e-12 * moments(features).covariance.trace() + 1e-15


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 999), st.integers(2, 60), st.integers(1, 17))
def test_moments_do_not_depend_on_order_and_batching(seed, n, batch_size):
    features = drawn(seed, n, 5)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    found = Moments()
    for part in features[order].split(batch_size):
        found.update(part)
    assert found.n == n
    np.testing.assert_allclose(found.mean, features.numpy().mean(0), rtol=1e-12, atol=1e-12)
    expected = np.cov(features.numpy(), rowvar=False)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-9, atol=1e-11)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 999), st.integers(3, 60), st.integers(1, 57))
def test_moments_without_a_part_are_those_of_the_rest(seed, n, part):
    features = drawn(seed, n, 5)
    left = max(n - part, 2)
    found = moments(features).without(moments(features[left:]))
    expected = moments(features[:left])
    assert found.n == left
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("n", "rank"), [(9, 12), (60, 12), (60, 5), (9, 3)])
def test_near_distances_are_the_distances(n, rank):
    parts = [drawn(seed, n, 12, rank) for seed in range(3)]
    reference = drawn(9, 40, 12)
    found = near_distances(map(moments, parts), moments(reference))
    assert found == pytest.approx([distance(part, reference) for part in parts], rel=1e-6)


def test_near_distances_of_constant_features_are_those_of_the_means():
    constant, other = torch.full((5, 3), 2.0), torch.full((4, 3), 1.0)
    assert near_distances([moments(constant)], moments(other)) == [3.0]


def test_leaving_all_out_is_refused():
    found = moments(drawn(0, 4, 2))
    with pytest.raises(ValueError, match="leaves none"):
        found.without(found)


def test_what_has_no_distance_is_refused():
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        _ = moments(torch.zeros(1, 3)).covariance
    with pytest.raises(ValueError, match="dimensions differ"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(np.array([np.nan, 0]), np.eye(2), np.zeros(2), np.eye(2))
