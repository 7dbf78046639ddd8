import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_features import KnownFeatures, normal, observed

from bench import registry
from bench.metrics.distances import FID, KID, InfiniteFID, InfiniteFIDSlope, OfficialFID, kid_error
from bench.metrics.extractors.feature_buffer import FeatureBuffer
from bench.metrics.feature_pairs import GeneratedFeatures
from bench.metrics.frechet import frechet_distance
from bench.metrics.neighbours import Coverage, Density, Precision, Recall
from bench.metrics.scores import InceptionScore, OfficialInceptionScore, split_scores
from bench.metrics.uncertainty import fit_line, subset_sizes

NAMES = (
    "fid",
    "fid_clean",
    "fid_official",
    "fid_infinity",
    "fid_infinity_slope",
    "inception_score",
    "inception_score_official",
    "kid",
    "precision",
    "recall",
    "density",
    "coverage",
    "efficientnet_frechet_distance",
    "efficientnet_kid",
    "efficientnet_score",
    "fd_dinov2",
    "kid_dinov2",
    "precision_dinov2",
    "recall_dinov2",
)


def test_every_metric_is_registered_under_its_name_with_known_extractors():
    for name in NAMES:
        metric = registry.metrics.load(name)
        assert metric.name == name
        assert all(extractor in registry.extractors for extractor in metric.extractors)
        assert metric.needs == {"features"}


# FID


def test_fid_is_the_frechet_distance_of_the_moments():
    generated, reference = normal(0, 70), normal(1, 50, shift=0.5)
    found = observed(FID, generated, reference)
    a, b = generated.double().numpy(), reference.double().numpy()
    expected = frechet_distance(
        a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False)
    )
    assert found.value == pytest.approx(expected, rel=1e-10)
    assert found.n == 70


def test_fid_s_interval_is_that_of_a_jackknife_over_ten_groups():
    generated, reference = normal(0, 63), normal(1, 50)
    found = observed(FID, generated, reference)
    indices = torch.arange(63)
    left_out = [
        observed(FID, generated[indices % 10 != group], reference).value for group in range(10)
    ]
    error = np.sqrt(0.9 * np.square(left_out - np.mean(left_out)).sum())
    assert found.ci_low == pytest.approx(found.value - 1.96 * error, rel=1e-9)
    assert found.ci_high == pytest.approx(found.value + 1.96 * error, rel=1e-9)


def test_fid_s_jackknife_is_as_wide_as_fid_varies():
    reference = normal(1, 1000, shift=1.0)
    found = [observed(FID, normal(seed, 200), reference) for seed in range(2, 62)]
    spread = np.std([one.value for one in found], ddof=1)
    widths = np.mean([one.ci_high - one.ci_low for one in found]) / (2 * 1.96)
    assert widths == pytest.approx(spread, rel=0.3)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 99), st.integers(1, 40))
def test_fid_does_not_depend_on_order_and_batching(seed, batch_size):
    generated, reference = normal(seed, 40), normal(seed + 1, 30)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
    expected = observed(FID, generated, reference).value
    found = observed(FID, generated[order], reference, batch_size=batch_size).value
    assert found == pytest.approx(expected, rel=1e-9)


def test_fid_needs_two_images_and_an_interval_ten():
    one = observed(FID, normal(0, 1), normal(1, 5))
    assert (one.status, one.value) == ("not_applicable", None)
    assert "1 generated and 5 reference images" in one.reason
    nine = observed(FID, normal(0, 9), normal(1, 5))
    assert nine.status == "ok"
    assert nine.ci_low is None


def test_official_fid_is_of_the_first_5000_images():
    generated, reference = normal(0, 5100, 3), normal(1, 60, 3, shift=0.5)
    found = observed(OfficialFID, generated, reference)
    assert found.n == 5000
    first = observed(FID, generated[:5000], reference)
    assert (found.value, found.ci_low) == (first.value, first.ci_low)
    assert found.value != observed(FID, generated, reference).value


def test_infinite_fid_has_less_bias_than_fid():
    true = 8 * 0.25
    reference = normal(1, 200_000, shift=0.5)
    found = [observed(InfiniteFID, normal(seed, 120), reference) for seed in range(2, 42)]
    plain = [observed(FID, normal(seed, 120), reference) for seed in range(2, 42)]
    bias = np.mean([one.value for one in found]) - true
    plain_bias = np.mean([one.value for one in plain]) - true
    assert plain_bias > 0.05
    assert abs(bias) < plain_bias / 2
    # The error is that of other images, too: it is the spread of independent draws.
    errors = [(one.ci_high - one.value) / 1.96 for one in found]
    spread = np.std([one.value for one in found], ddof=1)
    assert np.mean(errors) == pytest.approx(spread, rel=0.3)


def test_the_fit_behind_infinite_fid_gives_back_fid():
    generated, reference = normal(0, 120), normal(1, 5000, shift=0.5)
    fid, limit, slope = (
        observed(metric, generated, reference) for metric in (FID, InfiniteFID, InfiniteFIDSlope)
    )
    assert limit.value + slope.value / 120 == pytest.approx(fid.value, rel=0.02)
    assert slope.ci_low < slope.value < slope.ci_high
    assert slope.n == 120


def test_a_line_exactly_and_with_scatter():
    exact = fit_line([1, 2, 4], [3.5, 4, 5])
    assert (exact.intercept, exact.slope) == pytest.approx((3, 0.5))
    assert (exact.intercept_error, exact.slope_error) == pytest.approx((0, 0), abs=1e-7)
    # By hand: residuals -1/6, 1/3, -1/6 about the mean line, variance 1/6, sum of squares of x 2.
    found = fit_line([-1, 0, 1], [0, 1, 1])
    assert (found.intercept, found.slope) == pytest.approx((2 / 3, 0.5))
    assert found.slope_error == pytest.approx(np.sqrt(1 / 6 / 2))
    assert found.intercept_error == pytest.approx(np.sqrt(1 / 6 / 3))
    assert subset_sizes(2000, 4)[::14] == [500, 2000]
    assert len(subset_sizes(2000, 4)) == 15


def test_what_metrics_share_is_computed_once():
    pair = GeneratedFeatures(KnownFeatures(normal(1, 20)))
    pair.add("any", normal(0, 10)[:, None, None])
    calls = []

    def counted(of, k):
        calls.append((of, k))
        return k + 1

    shared = pair.pair("any")
    assert pair.pair("any") is shared
    assert [shared.once(counted, k) for k in (3, 4, 3)] == [4, 5, 4]
    assert calls == [(shared, 3), (shared, 4)]


def test_infinite_fid_needs_subsets_larger_than_the_features():
    assert observed(InfiniteFID, normal(0, 18), normal(1, 50)).status == "ok"
    found = observed(InfiniteFID, normal(0, 17), normal(1, 50))
    assert found.status == "not_applicable"
    assert "needs 18 generated images for 8 features" in found.reason


# KID


def unbiased_mmd(x, y):
    """Brute force: the mean kernel over pairs, no image with itself."""

    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    def within(a):
        return np.mean([kernel(a[i], a[j]) for i in range(len(a)) for j in range(len(a)) if i != j])

    return within(x) + within(y) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def test_kid_of_one_subset_of_all_images_is_the_unbiased_discrepancy():
    generated, reference = normal(0, 12), normal(1, 12, shift=0.5)
    found = observed(KID, generated, reference, kid_subsets=1, kid_subset_size=12)
    expected = unbiased_mmd(generated.double().numpy(), reference.double().numpy())
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert (found.ci_low, found.ci_high) == (None, None)


def test_kid_on_equal_distributions_is_unbiased():
    values = [
        observed(KID, normal(2 * i, 60), normal(2 * i + 1, 60), kid_subsets=5, kid_subset_size=40)
        for i in range(100)
    ]
    values = np.array([one.value for one in values])
    assert (values < 0).any()
    assert abs(values.mean()) < 3 * values.std() / 10


def test_kid_s_interval_is_at_least_as_wide_as_kid_varies():
    reference = normal(1, 5000, shift=0.3)
    found = [
        observed(KID, normal(seed, 200), reference, kid_subsets=20, kid_subset_size=50)
        for seed in range(2, 42)
    ]
    spread = np.std([one.value for one in found], ddof=1)
    width = np.mean([one.ci_high - one.ci_low for one in found]) / (2 * 1.96)
    assert 0.8 * spread < width < 2 * spread


def test_kid_error_tells_nothing_where_subsets_are_all_images():
    assert kid_error(0.0, 100, 50, 50) is None
    assert kid_error(1.0, 1, 50, 100) is None
    assert kid_error(1.0, 100, 50, 100) == pytest.approx(np.sqrt(1 + 0.01))


@pytest.mark.parametrize(("generated", "reference"), [(9, 20), (20, 9)])
def test_kid_with_fewer_images_than_a_subset_is_not_applicable(generated, reference):
    found = observed(KID, normal(0, generated), normal(1, reference), kid_subset_size=10)
    assert (found.status, found.value) == ("not_applicable", None)
    assert f"{generated} generated and {reference} reference images" in found.reason
    assert "kid_subset_size=10" in found.reason


# Inception score


def test_inception_score_of_uniform_predictions_is_one():
    found = observed(InceptionScore, torch.zeros(40, 10), inception_score_splits=4)
    assert found.value == pytest.approx(1, abs=1e-12)


def test_inception_score_of_sure_and_even_predictions_is_the_number_of_classes():
    one_hot = torch.eye(7).repeat(6, 1) * 2000
    assert observed(InceptionScore, one_hot, inception_score_splits=1).value == pytest.approx(7)


def test_inception_score_stands_classes_that_all_but_vanish():
    logits = torch.zeros(20, 3)
    logits[:, 0] = torch.linspace(743, 746, 20)
    assert observed(InceptionScore, logits, inception_score_splits=2).value == pytest.approx(1)


def test_inception_score_of_one_sure_class_is_one():
    logits = torch.zeros(20, 7)
    logits[:, 3] = 2000
    assert observed(InceptionScore, logits, inception_score_splits=2).value == pytest.approx(1)


def test_inception_score_is_the_mean_over_splits_with_their_standard_error():
    logits = normal(0, 33, 6) * 3
    found = observed(InceptionScore, logits, inception_score_splits=5)
    order = np.random.RandomState(2020).permutation(33)
    scores = split_scores(logits[order], 5)
    assert len(scores) == 5
    assert found.value == pytest.approx(scores.mean(), rel=1e-12)
    width = 1.96 * scores.std(ddof=1) / np.sqrt(5)
    assert found.ci_high - found.value == pytest.approx(width, rel=1e-9)


def test_a_split_of_the_inception_score_has_two_images():
    found = observed(InceptionScore, torch.zeros(7, 3), inception_score_splits=4)
    assert found.status == "not_applicable"
    assert found.reason == "7 generated images: inception_score_splits=4 needs 8"


def test_official_inception_score_takes_ten_splits_of_256_as_far_as_images_go():
    logits = normal(0, 2700, 5)
    whole = observed(OfficialInceptionScore, logits)
    assert whole.n == 2560
    assert whole.value == pytest.approx(split_scores(logits[:2560], 10).mean(), rel=1e-12)
    some = observed(OfficialInceptionScore, logits[:600])
    assert some.n == 512
    assert some.ci_low is not None
    one = observed(OfficialInceptionScore, logits[:300])
    assert (one.n, one.ci_low) == (256, None)
    assert observed(OfficialInceptionScore, logits[:255]).status == "not_applicable"


def test_the_protocol_sets_the_split_size_of_the_official_inception_score():
    logits = normal(0, 1300, 5)
    found = observed(OfficialInceptionScore, logits, official_inception_split_size=128)
    assert found.n == 1280
    assert found.value == pytest.approx(split_scores(logits[:1280], 10).mean(), rel=1e-12)
    few = observed(OfficialInceptionScore, logits[:127], official_inception_split_size=128)
    assert few.reason == "127 generated images: a split has 128"


# Precision, recall, density, coverage


def brute_force(generated, reference, k):
    """Precision, recall, density and coverage from their definitions, pair by pair."""

    def radius(points, i):
        return sorted(np.linalg.norm(points[i] - p) for j, p in enumerate(points) if j != i)[k - 1]

    def holds(points, i, other):
        return np.linalg.norm(points[i] - other) <= radius(points, i)

    inside = np.array([[holds(reference, j, g) for j in range(len(reference))] for g in generated])
    back = np.array([[holds(generated, i, r) for i in range(len(generated))] for r in reference])
    return {
        Precision: inside.any(1).mean(),
        Recall: back.any(1).mean(),
        Density: inside.sum(1).mean() / k,
        Coverage: inside.any(0).mean(),
    }


@pytest.mark.parametrize("k", [1, 3])
def test_neighbour_metrics_agree_with_brute_force(k):
    generated, reference = normal(0, 30, 3), normal(1, 24, 3, shift=0.7)
    expected = brute_force(generated.double().numpy(), reference.double().numpy(), k)
    for metric, value in expected.items():
        found = observed(metric, generated, reference, neighbours=k)
        assert found.value == pytest.approx(value, abs=1e-12), metric.name
        assert found.n == 30
        if 0 < value < 1:
            assert found.ci_low < found.value < found.ci_high


def test_images_that_all_count_the_same_give_no_interval():
    found = observed(Precision, normal(0, 20), normal(0, 20))
    assert (found.value, found.ci_low, found.ci_high) == (1, None, None)


def test_generated_images_of_one_mode_are_precise_but_recall_half():
    mode, other = normal(0, 40, 2) * 0.01, normal(1, 40, 2) * 0.01 + 100
    reference = torch.cat([mode, other])
    generated = mode[:20] + 1e-4
    found = {
        metric: observed(metric, generated, reference, neighbours=3).value
        for metric in (Precision, Recall, Coverage)
    }
    assert found[Precision] == 1
    assert 0.2 < found[Recall] <= 0.5
    assert found[Coverage] <= 0.5


def test_far_sets_share_nothing():
    for metric in (Precision, Recall, Density, Coverage):
        assert observed(metric, normal(0, 20), normal(1, 20, shift=50)).value == 0


def test_equal_sets_share_everything():
    points = normal(0, 30)
    for metric in (Precision, Recall, Coverage):
        assert observed(metric, points, points).value == 1


def test_neighbour_metrics_need_more_images_than_neighbours():
    for metric in (Precision, Recall, Density, Coverage):
        found = observed(metric, normal(0, 5), normal(1, 20), neighbours=5)
        assert found.status == "not_applicable"
        assert "neighbours=5 needs 6 of each" in found.reason


# bad input


@pytest.mark.parametrize("value", [0.0, 0.1, 123.456])
def test_constant_images_work(value):
    constant, spread = torch.full((20, 600), value), normal(1, 30, 600)
    settings = {"kid_subset_size": 10, "inception_score_splits": 2}
    for metric in (FID, KID, InceptionScore, Precision, Recall, Density, Coverage):
        same = observed(metric, constant, constant[:15], **settings)
        assert same.status == "ok"
        assert np.isfinite(same.value)
        if metric in (Precision, Recall, Coverage):
            assert same.value == 1
        assert np.isfinite(observed(metric, constant, spread, **settings).value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(bad):
    features = normal(0, 20)
    features[3, 2] = bad
    with pytest.raises(ValueError, match="not finite"):
        observed(FID, features, normal(1, 20))
    with pytest.raises(ValueError, match="of the test images"):
        observed(KID, normal(0, 20), features, kid_subset_size=10)


def test_a_feature_buffer_returns_its_rows():
    buffer = FeatureBuffer()
    assert len(buffer.rows()) == 0
    parts = [normal(i, n, 5) for i, n in enumerate((3, 1, 7))]
    for part in parts:
        buffer.add(part)
        assert torch.equal(buffer.rows()[-len(part) :], part)
    assert torch.equal(buffer.rows(), torch.cat(parts))
    with pytest.raises(ValueError, match="features of 4 values after features of 5"):
        buffer.add(normal(0, 2, 4))
