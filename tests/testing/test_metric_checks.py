"""Metrics that are right, and metrics that are wrong in one way each."""

import pytest
import torch

from bench.errors import SkippedError
from bench.metrics.metric import Metric, Observation
from bench.testing import check_metric, metric_checks


class Good(Metric):
    """Mean absolute error of the reconstructions."""

    name, unit, higher_is_better, tolerance = "good", "1", False, 0.05
    needs = frozenset({"reconstructions"})

    def __init__(self, protocol):
        super().__init__(protocol)
        self.total, self.images = 0.0, 0

    def update(self, batch):
        self.total += (batch.images - batch.originals).abs().flatten(1).mean(1).sum().item()
        self.images += len(batch.images)

    def compute(self, facts):
        value = self.total / self.images
        yield Observation(
            value, n=self.images, split="test", ci_low=value - 0.1, ci_high=value + 0.1
        )


class MeanOfMeans(Good):
    def update(self, batch):
        self.total += (batch.images - batch.originals).abs().mean().item()
        self.images += 1


class Accumulating(Good):
    sums = []  # noqa: RUF012

    def update(self, batch):
        super().update(batch)
        self.sums.append(self.total)

    def compute(self, facts):
        yield Observation(sum(self.sums), n=self.images, split="test")


class InPlace(Good):
    def update(self, batch):
        super().update(batch)
        batch.images.clamp_(-0.1, 0.1)


class Outside(Good):
    def compute(self, facts):
        (one,) = super().compute(facts)
        yield Observation(one.value, n=one.n, split="test", ci_low=2.0, ci_high=3.0)


class Infinite(Good):
    def compute(self, facts):
        yield Observation(float("inf"), n=1, split="test")


class Words(Good):
    def compute(self, facts):
        yield Observation("good", n=1, split="test")


class Unitless(Good):
    unit = ""


class Unseeded(Good):
    def compute(self, facts):
        generator = torch.Generator()
        generator.seed()
        yield Observation(torch.rand((), generator=generator).item(), n=1, split="test")


class Waiting(Good):
    def compute(self, facts):
        raise SkippedError("no weights here: pip install them")


WRONG = {
    MeanOfMeans: ("values do not depend", "all images at once give"),
    Accumulating: ("the same images", "keep sums in attributes that __init__ makes"),
    InPlace: ("leaves its inputs", "the metric changes batch.images"),
    Outside: ("intervals", "the interval 2..3 leaves out the value"),
    Infinite: ("has finite values", "the value is inf"),
    Words: ("has finite values", "yielded value = 'good'; expected a number"),
    Unitless: ("declares", "the attribute unit of Unitless is ''"),
    Unseeded: ("the same images", "the same images give"),
}


def test_a_good_metric_passes_every_check():
    assert {each.outcome for each in check_metric(Good, "cpu")} == {"passed"}


@pytest.mark.parametrize("metric", WRONG, ids=lambda cls: cls.__name__)
def test_a_wrong_metric_fails_its_check_and_is_told_why(metric):
    check, words = WRONG[metric]
    results = {each.check: each for each in check_metric(metric, "cpu")}
    (result,) = (each for name, each in results.items() if name.startswith(check))
    assert result.outcome == "failed"
    assert words in result.message


def test_a_metric_that_is_skipped_has_nothing_to_check():
    results = check_metric(Waiting, "cpu")
    assert [each.outcome for each in results[1:]].count("not applicable") == 3
    assert "no weights here: pip install them" in {each.message for each in results}


@pytest.mark.parametrize("check", metric_checks("psnr", "cpu"), ids=str)
def test_checks_are_tests_of_pytest(check):
    check()


@pytest.mark.parametrize(
    "name",
    [
        "reconstruction_loss",
        "ssim",
        "noise_robustness",
        "reconstruction_loss_by_time_step",
        "linear_probe_accuracy",
        "posterior_prior_mmd",
        "firing_rate",
        "energy",
        "parameter_count",
        "training_throughput",
        "fad_selection_gain",
    ],
)
def test_metrics_of_the_suite_pass(name):
    assert "failed" not in {each.outcome for each in check_metric(name, "cpu")}
