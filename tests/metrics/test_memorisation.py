import numpy as np
import pytest
import torch
from contexts import cell_context
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from known_features import Identity, normal, observed
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu, norm

from bench import registry
from bench.metrics.extractors.extractor import Extractors
from bench.metrics.memorisation import (
    Authenticity,
    DataCopyingTest,
    TrainingDistanceRatio,
    distances_within,
    nearest,
    rank_test,
    ratio_of_means,
)
from bench.protocol import load_protocol

METRICS = (Authenticity, DataCopyingTest, TrainingDistanceRatio)
# Whole numbers, so that equal distances occur.
points = arrays(np.float32, st.tuples(st.integers(2, 12), st.just(2)), elements=st.integers(0, 5))


def definitions(generated, test, train):
    """The three metrics from their definitions and the distances of all pairs."""
    to_generated, to_test = cdist(generated, train), cdist(test, train)
    within = cdist(train, train)
    np.fill_diagonal(within, np.inf)
    close, closest = to_generated.min(1), to_generated.argmin(1)
    far = to_test.min(1)
    # Two-sided, the sign is that of the difference from the mean of U.
    tested = mannwhitneyu(close, far, method="asymptotic", use_continuity=False)
    sign = np.sign(tested.statistic - len(close) * len(far) / 2)
    return {
        Authenticity: (close > within.min(1)[closest]).mean(),
        DataCopyingTest: sign * norm.isf(tested.pvalue / 2),
        TrainingDistanceRatio: close.mean() / far.mean(),
    }


@pytest.mark.parametrize("metric", METRICS)
def test_each_metric_is_registered_for_inception_and_for_fads_autoencoder(metric):
    for prefix, extractor in (("", "inception_torch_fidelity"), ("autoencoder_", "autoencoder")):
        name = prefix + metric.name
        registered = registry.metrics.load(name)
        assert issubclass(registered, metric)
        assert (registered.name, registered.extractors) == (name, (extractor,))


@pytest.mark.parametrize(("n", "scale"), [(40, 1.0), (70, 0.8), (25, 1.3)])
def test_the_metrics_agree_with_their_definitions(n, scale):
    generated, test, train = normal(0, n, 5) * scale, normal(1, 30, 5), normal(2, 90, 5)
    exact = [part.double().numpy() for part in (generated, test, train)]
    for metric, value in definitions(*exact).items():
        found = observed(metric, generated, test, train=train)
        assert found.value == pytest.approx(value, rel=1e-9), metric.name
        assert found.n == n
        assert found.ci_low < found.value < found.ci_high


def test_the_training_images_are_compared_with_whatever_the_reference_is():
    generated, test, train = normal(0, 40), normal(1, 30), normal(2, 90)
    for metric in METRICS:
        of_test = observed(metric, generated, test, train=train)
        of_train = observed(metric, generated, test, train=train, reference_split='"train"')
        assert of_train == of_test


@pytest.mark.parametrize(("split", "entries"), [("train", 1), ("test", 2)])
def test_features_of_training_images_are_cached_as_the_reference_s_are(tmp_path, split, entries):
    class OfPixels(Extractors):
        def get(self, name):
            return Identity()

    images = {
        f"{name}_images": torch.full((7, 1, 2, 2), value, dtype=torch.uint8)
        for name, value in (("train", 0), ("test", 255))
    }
    protocol = load_protocol("smoke", [f"reference_split={split}"]).resolve("m", "d")
    extractors = OfPixels(cell_context(protocol, folder=tmp_path, **images))
    assert extractors.reference("any").pool.mean() == (-1 if split == "train" else 1)
    assert (extractors.of_split("any", "train").pool == -1).all()
    written = sorted(tmp_path.glob("cache/features/*/pool.npy"))
    assert len(written) == entries
    before = [path.stat().st_mtime_ns for path in written]
    again = OfPixels(cell_context(protocol, folder=tmp_path, **images))
    assert torch.equal(again.of_split("any", "train").pool, torch.full((7, 4), -1.0))
    assert [path.stat().st_mtime_ns for path in written] == before


# Copies, new images, and images unlike the data


def test_a_set_with_copies_is_told_from_new_images_and_from_noise():
    train, test = normal(0, 400), normal(1, 300)
    fresh, noise = normal(2, 200), 2 * normal(3, 200)
    copies = torch.cat([train[:150] + 0.1, fresh[150:]])
    values = {
        metric: [observed(metric, images, test, train=train) for images in (copies, fresh, noise)]
        for metric in METRICS
    }
    copied, new, unlike = (found.value for found in values[Authenticity])
    assert copied < 0.25
    # As in the docstring: 0.6 in 8 dimensions.
    assert new == pytest.approx(0.6, abs=0.1)
    assert unlike > 0.95
    copied, new, unlike = values[DataCopyingTest]
    assert copied.ci_high < -1.96
    assert new.ci_low < 0 < new.ci_high
    assert unlike.ci_low > 1.96
    copied, new, unlike = values[TrainingDistanceRatio]
    assert copied.ci_high < 0.5
    assert new.ci_low < 1 < new.ci_high
    assert unlike.ci_low > 1.5


@settings(deadline=None, max_examples=30)
@given(copied=st.integers(0, 30))
def test_authenticity_is_the_share_of_images_that_are_no_copies(copied):
    train = normal(0, 40)
    far = normal(1, 30, shift=100.0)
    found = observed(Authenticity, torch.cat([train[:copied], far[copied:]]), train=train)
    assert found.value == pytest.approx(1 - copied / 30, abs=1e-12)
    assert 0 <= found.ci_low <= found.value <= found.ci_high <= 1
    assert found.ci_low < found.ci_high


def test_sets_without_an_overlap_of_distances_have_no_error_of_their_ranks():
    train = normal(0, 30)
    found = observed(DataCopyingTest, train[:20], normal(1, 20), train=train)
    assert found.value == pytest.approx(-np.sqrt(12 * 400 / 41) / 2)
    assert (found.ci_low, found.ci_high) == (None, None)


def test_a_copy_of_an_image_that_was_trained_on_twice_is_not_authentic():
    once = normal(0, 20)
    rounded = once[:10] * (1 + 1e-6)
    found = observed(Authenticity, rounded, once, train=torch.cat([once, once]))
    assert found.value == 0


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 99), batch_size=st.integers(1, 40))
def test_order_and_batches_of_the_images_do_not_matter(seed, batch_size):
    generated, test, train = normal(seed, 40), normal(100, 20), normal(101, 50)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
    for metric in METRICS:
        one = observed(metric, generated, test, train=train)
        other = observed(metric, generated[order], test, batch_size, train=train)
        assert other.value == pytest.approx(one.value, rel=1e-9, abs=1e-12)


# Intervals


@pytest.mark.parametrize("metric", METRICS)
def test_an_interval_is_as_wide_as_the_value_varies(metric):
    train = normal(0, 200)
    found = [
        observed(metric, 0.9 * normal(seed, 100), normal(1000 + seed, 100), train=train)
        for seed in range(1, 81)
    ]
    spread = np.std([one.value for one in found], ddof=1)
    width = np.mean([one.ci_high - one.ci_low for one in found]) / (2 * 1.96)
    assert width == pytest.approx(spread, rel=0.25)


# Nearest neighbours, ranks and ratios


@settings(deadline=None)
@given(features=points, others=points)
def test_the_nearest_vector_is_as_far_as_the_smallest_of_all_distances(features, others):
    found = nearest(features, others)
    every = cdist(features, others)
    np.testing.assert_allclose(found.distances, every.min(1), rtol=1e-12, atol=0)
    np.testing.assert_allclose(every[np.arange(len(features)), found.indices], every.min(1))


@settings(deadline=None)
@given(features=points, data=st.data())
def test_distances_within_a_set_leave_out_the_vector_itself_and_not_its_double(features, data):
    chosen = np.array(data.draw(st.lists(st.integers(0, len(features) - 1), min_size=1)))
    every = cdist(features, features)
    np.fill_diagonal(every, np.inf)
    found = distances_within(features, chosen)
    np.testing.assert_allclose(found, every.min(1)[chosen], rtol=1e-12, atol=0)


def test_equal_vectors_of_large_values_have_no_distance():
    features = np.float32(1e4) + normal(0, 2500, 64).numpy()
    assert not nearest(features, features).distances.any()
    twice = np.concatenate([features, features])
    assert not distances_within(twice, np.arange(len(twice))).any()


@settings(deadline=None)
@given(
    sample=st.lists(st.integers(0, 9), min_size=9, max_size=30),
    other=st.lists(st.integers(0, 9), min_size=9, max_size=30),
)
def test_the_z_score_counts_pairs_and_its_error_is_delong_s(sample, other):
    x, y = np.array(sample, float), np.array(other, float)
    n, m = len(x), len(y)
    wins = (x[:, None] > y) + (x[:, None] == y) / 2
    z, error = rank_test(x, y)
    scale = np.sqrt(12 * n * m / (n + m + 1))
    assert z == pytest.approx(scale * (wins.mean() - 0.5), abs=1e-9)
    variance = wins.mean(1).var(ddof=1) / n + wins.mean(0).var(ddof=1) / m
    assert error == pytest.approx(scale * np.sqrt(variance), abs=1e-6)
    mirrored, same_error = rank_test(y, x)
    assert (mirrored, same_error) == pytest.approx((-z, error), abs=1e-6)


def test_the_error_of_a_z_score_is_one_for_equal_distributions():
    generator = np.random.default_rng(0)
    errors = [rank_test(*generator.normal(size=(2, 50)))[1] for _ in range(200)]
    assert np.mean(errors) == pytest.approx(1, rel=0.03)


def test_a_ratio_of_means_scales_with_both_samples():
    x, y = np.array([1.0, 2.0, 6.0]), np.array([2.0, 4.0])
    ratio, error = ratio_of_means(x, y)
    assert ratio == 1
    assert ratio_of_means(3 * x, y) == pytest.approx((3 * ratio, 3 * error))
    assert ratio_of_means(x, 2 * y) == pytest.approx((ratio / 2, error / 2))
    assert ratio_of_means(x[:1], y) == (pytest.approx(1 / 3), None)


# What cannot be computed


def test_few_images_give_a_reason():
    ten = normal(0, 10)
    one = observed(Authenticity, ten, ten, train=ten[:1])
    assert (one.status, one.value) == ("not_applicable", None)
    assert one.reason == "1 training images: authenticity needs 2"
    for generated, test in ((8, 10), (10, 8)):
        found = observed(DataCopyingTest, ten[:generated], ten[:test], train=ten)
        assert found.status == "not_applicable"
        expected = f"{generated} generated and {test} test images: the z-score needs 9 of each"
        assert found.reason == expected
    alone = observed(TrainingDistanceRatio, ten[:1], ten[:5], train=normal(1, 10))
    assert (alone.status, alone.ci_low) == ("ok", None)


def test_test_images_that_were_trained_on_leave_no_ratio():
    rounded = normal(1, 20) * (1 + 1e-6)
    found = observed(TrainingDistanceRatio, normal(0, 10), rounded, train=normal(1, 20))
    assert found.status == "not_applicable"
    assert "every test image has the features of a training image" in found.reason


def test_equal_features_are_copies_without_evidence_against_them():
    equal = torch.full((20, 3), 0.1)
    assert observed(Authenticity, equal).value == 0
    found = observed(DataCopyingTest, equal)
    assert (found.value, found.ci_low, found.ci_high) == (0, None, None)
    assert observed(TrainingDistanceRatio, equal).status == "not_applicable"


@pytest.mark.parametrize("metric", METRICS)
def test_training_features_that_are_not_finite_are_refused(metric):
    train = normal(2, 20)
    train[3, 2] = float("nan")
    with pytest.raises(ValueError, match="of the train images contain values that are not finite"):
        observed(metric, normal(0, 10), normal(1, 10), train=train)
