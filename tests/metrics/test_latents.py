import math

import numpy as np
import pytest
import torch
from contexts import cell_context
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from bench.evaluation.passes import Passes
from bench.metrics import latents as latents_module
from bench.metrics.latents import (
    BANDWIDTHS,
    LinearProbeAccuracy,
    PosteriorPriorFrechetDistance,
    PosteriorPriorMMD,
    squared_mmd,
    wilson_interval,
)
from bench.metrics.metric import LatentBatch, ModelFacts
from bench.model import GenerativeModel
from bench.protocol import load_protocol
from bench.recording.training_record import TrainingRecord

FACTS = ModelFacts(0, 0, TrainingRecord((), {}, None), None)
METRICS = (LinearProbeAccuracy, PosteriorPriorMMD, PosteriorPriorFrechetDistance)


def observed(metric_class, batches):
    metric = metric_class(load_protocol("smoke"))
    for batch in batches:
        metric.update_latents(batch)
    (found,) = metric.compute(FACTS)
    assert found.split == "test"
    return found


def spike_trains(rates, seed, time_steps=16):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand((time_steps, *rates.shape), generator=generator) < rates).float()


def labelled(split, labels, latents, size=50):
    axis = latents.ndim - 2
    parts = zip(latents.split(size, axis), labels.split(size), strict=True)
    return [LatentBatch(split, part, known) for part, known in parts]


def by_class(seed, n=200, classes=4, strength=0.8):
    """Labels, and spike trains in which neuron k fires if the class is k."""
    labels = torch.arange(n) % classes
    rates = 0.1 + strength * nn.functional.one_hot(labels, classes).repeat(1, 3)
    return labels, spike_trains(rates, seed)


def test_the_probe_tells_separable_classes():
    batches = [*labelled("train", *by_class(0)), *labelled("test", *by_class(1, n=100))]
    found = observed(LinearProbeAccuracy, batches)
    assert (found.value, found.n) == (1.0, 100)
    assert found.ci_low == pytest.approx(100 / (100 + 1.96**2))
    assert found.ci_high == 1.0


def test_the_probe_is_at_chance_on_random_labels():
    generator = torch.Generator().manual_seed(0)
    batches = []
    for split, seed in (("train", 0), ("test", 1)):
        _, latents = by_class(seed, n=1000)
        labels = torch.randint(0, 4, (1000,), generator=generator)
        batches += labelled(split, labels, latents)
    found = observed(LinearProbeAccuracy, batches)
    assert found.value == pytest.approx(0.25, abs=0.06)
    assert found.ci_low < 0.25 < found.ci_high + 0.03


def test_the_probe_reads_rates_and_not_times():
    labels, latents = by_class(0)
    shuffled = latents.flip(0)
    test = by_class(1)
    found = [
        observed(LinearProbeAccuracy, [*labelled("train", labels, z), *labelled("test", *test)])
        for z in (latents, shuffled)
    ]
    assert found[0] == found[1]


def test_the_probe_takes_latents_without_time_of_any_scale_and_dead_ones():
    batches = []
    for split, seed in (("train", 0), ("test", 1)):
        labels, trains = by_class(seed)
        faint = 1e-6 * trains.double().mean(0)
        loud = 1e3 + 1e3 * normal(len(labels), 5, seed)
        batches += labelled(split, labels, torch.cat([faint, loud, torch.zeros(200, 2)], 1))
    assert observed(LinearProbeAccuracy, batches).value == 1.0


def test_the_probe_does_not_apply_without_labels_or_with_one_class():
    _, latents = by_class(0)
    unlabelled = [LatentBatch("train", latents, None), LatentBatch("test", latents, None)]
    found = observed(LinearProbeAccuracy, unlabelled)
    assert (found.status, found.reason) == ("not_applicable", "the dataset has no labels")
    same = torch.zeros(200, dtype=torch.long)
    single = [*labelled("train", same, latents), *labelled("test", same, latents)]
    found = observed(LinearProbeAccuracy, single)
    assert found.status == "not_applicable"
    assert found.reason == "all training images are of one class"


def test_a_fit_that_does_not_converge_gives_no_number(monkeypatch):
    monkeypatch.setattr(latents_module, "PROBE_ITERATIONS", 1)
    batches = [*labelled("train", *by_class(0)), *labelled("test", *by_class(1))]
    with pytest.raises(ConvergenceWarning):
        observed(LinearProbeAccuracy, batches)


@given(n=st.integers(1, 200), data=st.data())
def test_wilsons_interval_solves_its_equation(n, data):
    successes = data.draw(st.integers(0, n))
    low, high = wilson_interval(successes, n)
    share = successes / n
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        distance = abs(share - end)
        expected = 1.96 * math.sqrt(end * (1 - end) / n)
        assert distance == pytest.approx(expected, abs=1e-7)


def naive_squared_mmd(x, y):
    x, y = np.asarray(x), np.asarray(y)
    both = np.concatenate([x, y])
    distances = [np.linalg.norm(both[i] - both[j]) for i in range(len(both)) for j in range(i)]
    median = np.median([distance for distance in distances if distance > 0])

    def kernel(a, b):
        squared = np.square(a - b).sum()
        return np.mean([np.exp(-squared / (2 * (b * median) ** 2)) for b in BANDWIDTHS])

    total = 0.0
    for i in range(len(x)):
        for j in range(len(x)):
            if i != j:
                total += kernel(x[i], x[j]) + kernel(y[i], y[j])
                total -= kernel(x[i], y[j]) + kernel(x[j], y[i])
    return total / (len(x) * (len(x) - 1))


def normal(n, size, seed, shift=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(n, size, generator=generator, dtype=torch.float64)
    return draws * scale + shift


@settings(max_examples=15, deadline=None)
@given(n=st.integers(3, 12), size=st.integers(1, 5), seed=st.integers(0, 99))
def test_mmd_agrees_with_a_double_loop(n, size, seed):
    x, y = normal(n, size, seed), normal(n, size, seed + 100, shift=0.5)
    assert squared_mmd(x, y)[0] == pytest.approx(naive_squared_mmd(x, y), abs=1e-12)
    rates = [spike_trains(torch.full((n, size), 0.4), s).mean(0).double() for s in (seed, seed + 1)]
    if not torch.cat(rates).eq(rates[0][0]).all():
        expected = naive_squared_mmd(*rates)
        assert squared_mmd(*rates)[0] == pytest.approx(expected, abs=1e-12)


def test_mmd_is_unbiased_on_equal_distributions_and_its_error_is_the_spread():
    found = [squared_mmd(normal(60, 4, 2 * i), normal(60, 4, 2 * i + 1))[0] for i in range(200)]
    assert min(found) < 0
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(len(found))
    apart = [
        squared_mmd(normal(60, 4, 2 * i), normal(60, 4, 2 * i + 1, shift=0.7)) for i in range(200)
    ]
    values, errors = zip(*apart, strict=True)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


def test_mmd_is_large_on_distant_distributions_symmetric_and_free_of_scale():
    x, y = normal(100, 3, 0), normal(100, 3, 1, shift=20.0)
    value, error = squared_mmd(x, y)
    assert value > 0.5
    assert error < 0.05
    assert squared_mmd(y, x)[0] == pytest.approx(value)
    assert squared_mmd(1e3 * x + 7, 1e3 * y + 7)[0] == pytest.approx(value)


def test_mmd_of_points_that_are_all_the_same_is_0():
    silent = torch.zeros(5, 3, dtype=torch.float64)
    assert squared_mmd(silent, silent) == (0.0, 0.0)


def test_mmd_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="two samples of equal size, at least 3, got 4 and 5"):
        squared_mmd(normal(4, 2, 0), normal(5, 2, 0))
    with pytest.raises(ValueError, match="not finite"):
        squared_mmd(normal(4, 2, 0) * math.nan, normal(4, 2, 0))


def of_two(posterior, prior, size=64):
    axis = posterior.ndim - 2
    batches = [LatentBatch("test", z, None) for z in posterior.split(size, axis)]
    batches += [LatentBatch("train", z + 9, None) for z in posterior.split(size, axis)]
    return batches + [LatentBatch("prior", z, None) for z in prior.split(size, axis)]


@pytest.mark.parametrize("metric", [PosteriorPriorMMD, PosteriorPriorFrechetDistance])
def test_posterior_and_prior_are_near_if_equal_and_far_if_not(metric):
    rates = torch.full((400, 6), 0.3)
    posterior = spike_trains(rates, 0)
    near = observed(metric, of_two(posterior, spike_trains(rates, 1)))
    far = observed(metric, of_two(posterior, spike_trains(rates + 0.5, 1)))
    assert abs(near.value) < 0.01
    assert far.value > 0.5
    assert near.n == far.n == 400
    again = observed(metric, of_two(posterior, spike_trains(rates, 1), size=7))
    assert again.value == pytest.approx(near.value, abs=1e-9)


def test_the_frechet_distance_of_shifted_latents_is_the_squared_shift():
    latents = normal(300, 4, 0)
    found = observed(PosteriorPriorFrechetDistance, of_two(latents, latents + 3))
    assert found.value == pytest.approx(4 * 9)


def test_the_interval_of_the_frechet_distance_is_the_spread_of_repeated_draws():
    found = [
        observed(
            PosteriorPriorFrechetDistance,
            of_two(normal(300, 4, 2 * i) + 0.5, normal(300, 4, 2 * i + 1)),
        )
        for i in range(60)
    ]
    errors = [(one.ci_high - one.ci_low) / 2 / 1.96 for one in found]
    assert np.mean(errors) == pytest.approx(np.std([one.value for one in found]), rel=0.3)
    few = observed(PosteriorPriorFrechetDistance, of_two(normal(9, 4, 0), normal(9, 4, 1)))
    assert (few.status, few.ci_low, few.ci_high) == ("ok", None, None)


def test_mmd_draws_its_latents_from_all(monkeypatch):
    monkeypatch.setattr(latents_module, "MMD_LATENTS", 50)
    posterior, prior = normal(80, 3, 0), normal(80, 3, 1)
    drawn = np.sort(np.random.RandomState(0).permutation(80)[:50])
    found = observed(PosteriorPriorMMD, of_two(posterior, prior, size=30))
    assert (found.value, found.n) == (squared_mmd(posterior[drawn], prior[drawn])[0], 50)
    few = observed(PosteriorPriorMMD, of_two(posterior[:40], prior[:40], size=30))
    assert (few.value, few.n) == (squared_mmd(posterior[:40], prior[:40])[0], 40)


@pytest.mark.parametrize("metric", [PosteriorPriorMMD, PosteriorPriorFrechetDistance])
def test_no_prior_or_too_few_images_is_a_reason(metric):
    latents = normal(10, 3, 0)
    found = observed(metric, [LatentBatch("test", latents, None)])
    assert (found.value, found.status) == (None, "not_applicable")
    assert found.reason == "the model cannot draw latents from its prior"
    found = observed(metric, of_two(latents[:1], latents[:1]))
    assert (found.value, found.status, found.n) == (None, "not_applicable", 1)
    assert "1 latents of test images and 1 of the prior" in found.reason


class Collapsed(GenerativeModel):
    """Its posterior is its prior, N(0, I), whatever it is shown."""

    version = "1"
    capabilities = frozenset({"encode", "sample_latents"})

    def __init__(self, protocol):
        super().__init__((1, 8, 8), protocol, None)
        self.weight = nn.Parameter(torch.zeros(1))

    def training_step(self, images, step):
        return {"loss": 0.0}

    def encode(self, images, generator):
        return torch.randn(len(images), 4, generator=generator)

    def sample_latents(self, n, generator):
        return torch.randn(n, 4, generator=generator)


def latents_of(model_class, *changes, n=60):
    protocol = load_protocol("smoke", ["evaluation_batch_size=25", *changes]).resolve("m", "d")
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 8, 8)
    labels = {"train_labels": torch.arange(n), "test_labels": torch.arange(n)}
    run = Passes(model_class(protocol), cell_context(protocol, images, **labels))
    return list(run.latents())


def test_the_pass_draws_posterior_and_prior_independently():
    drawn = {}
    for batch in latents_of(Collapsed):
        drawn.setdefault(batch.split, []).append(batch.latents)
    values = {split: torch.cat(parts) for split, parts in drawn.items()}
    assert {split: len(found) for split, found in values.items()} == {
        "train": 60,
        "test": 60,
        "prior": 60,
    }
    for one, other in (("train", "test"), ("test", "prior"), ("train", "prior")):
        pairs = torch.stack([values[one].flatten(), values[other].flatten()])
        assert torch.corrcoef(pairs)[0, 1].abs() < 0.25


class Reading(Collapsed):
    """Its latent is the first pixel."""

    def encode(self, images, generator):
        return images[:, 0, 0, :1]


def test_the_pass_gives_each_drawn_image_its_label():
    """The images are drawn from the whole split: those of a folder are sorted by class."""
    drawn = np.sort(np.random.RandomState(0).permutation(60)[:40])
    batches = latents_of(Reading, "latent_images=40")
    for split in ("train", "test"):
        labels = torch.cat([batch.labels for batch in batches if batch.split == split])
        assert labels.tolist() == drawn.tolist()
        pixels = torch.cat([batch.latents for batch in batches if batch.split == split])
        assert ((pixels[:, 0] + 1) * 127.5).round().int().tolist() == drawn.tolist()
    assert sum(len(batch.latents) for batch in batches if batch.split == "prior") == 40
    assert {batch.labels for batch in batches if batch.split == "prior"} == {None}


def test_a_run_has_all_three_for_every_vae(vae_rows):
    rows = vae_rows
    for metric in METRICS:
        found = rows[rows["metric"] == metric.name]
        assert len(found) == rows["cell_key"].nunique()
        assert set(found["status"]) == {"ok"}
        assert set(found["n"]) == {24}
    probe = rows[rows["metric"] == "linear_probe_accuracy"]
    assert probe["value"].between(probe["ci_low"], probe["ci_high"]).all()
