"""Checks of a metric: values, batches, repetition and intervals."""

import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from math import isclose
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from bench import registry
from bench.evaluation.context import CellContext
from bench.evaluation.evaluator import Evaluator, Selections
from bench.metrics.metric import Batch, LatentBatch, Metric, Observation
from bench.metrics.metric_contract import check_class
from bench.protocol import load_protocol
from bench.recording.training_record import EpochRecord, TrainingRecord
from bench.store.schema import FAILED, OK
from bench.system.devices import resolve_device
from bench.system.paths import Resources, data_root
from bench.system.progress import WorkReporter
from bench.system.random_state import seed_everything
from bench.testing.checks import Check, CheckResult, NotApplicableError, require, results
from bench.testing.equations import PlainBackend
from bench.testing.sample_model import SampleModel

SETTINGS = (
    "time_steps=3",
    "latent_size=16",
    "generated_images=32",
    "latent_images=24",
    "noise_images=16",
    "time_step_images=16",
    "kid_subset_size=8",
    "kid_subsets=10",
    "inception_minimum_images=32",
    "inception_score_splits=2",
    "autoencoder_epochs=1",
    "autoencoder_batch_size=16",
    "image_size=32",
)
TRAIN_IMAGES, TEST_IMAGES = 48, 24
WHOLE, UNEVEN = 32, 7
"""Sizes of batches whose values are compared: all images at once, and several batches."""
TOLERANCE = 1e-4
"""Relative difference of values that is taken for rounding."""
Observations = list[Observation]


def check_metric(metric: str | type[Metric], device: str = "auto") -> list[CheckResult]:
    """Check a metric on the outputs of a small spiking model.

    Args:
        metric: registered name, or class.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        How each check ended.

    Raises:
        BenchError: an unknown name or device.
    """
    return results(metric_checks(metric, device))


def metric_checks(metric: str | type[Metric], device: str = "auto") -> list[Check]:
    """Return the checks of a metric, to run one by one; arguments as in :func:`check_metric`."""
    metric_class = registry.metrics.load(metric) if isinstance(metric, str) else metric
    subject = _Subject(metric_class, resolve_device(device))
    return [Check(name, partial(function, subject)) for name, function in _CHECKS.items()]


@dataclass(frozen=True)
class _Subject:
    """A metric to check.

    Attributes:
        metric_class: the class.
        device: device of the model.
    """

    metric_class: type[Metric]
    device: torch.device

    @cached_property
    def whole(self) -> Observations:
        """The observations for all images in one batch."""
        return self.observed(WHOLE)

    @cached_property
    def uneven(self) -> Observations:
        """The observations for several batches, the last of them smaller."""
        return self.observed(UNEVEN)

    def observed(self, batch_size: int, metric_class: type[Metric] | None = None) -> Observations:
        """Compute the metric, or a subclass of it, with batches of a size."""
        metric = metric_class or self.metric_class
        context = self._context(batch_size)
        seed_everything(0)
        model = SampleModel((1, 32, 32), context.protocol, PlainBackend()).to(self.device)
        epochs = tuple(EpochRecord({"loss": 1.0 / n}, TRAIN_IMAGES, 0.5) for n in (1, 2))
        training = TrainingRecord(epochs, {"last": 2}, 2**20, steps=8)
        return Evaluator(context).evaluate(model, [metric], training, _SELECTIONS)[metric.name]

    @cached_property
    def _cache(self) -> Path:
        """A folder for features of reference images, which goes with the subject."""
        folder = tempfile.mkdtemp(prefix="bench-check-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    def _context(self, batch_size: int) -> CellContext:
        protocol = load_protocol("smoke", (*SETTINGS, f"evaluation_batch_size={batch_size}"))
        labels = torch.arange(TRAIN_IMAGES) % 4
        return CellContext(
            dataset="drawn",
            fingerprint="drawn by bench.testing",
            protocol=protocol.resolve("esvae", "drawn"),
            seed=0,
            device=self.device,
            train_images=_images(TRAIN_IMAGES, 0).to(self.device),
            test_images=_images(TEST_IMAGES, 1).to(self.device),
            validation_images=_images(TEST_IMAGES, 2).to(self.device),
            train_labels=labels,
            test_labels=labels[:TEST_IMAGES],
            resources=Resources(data_root(None), {}, self._cache),
            reporter=WorkReporter(),
        )


def _has_values(subject: _Subject) -> str | None:
    observed = subject.whole
    for each in observed:
        require(each.status != FAILED, f"{each.reason}")
    reasons = dict.fromkeys(str(each.reason) for each in observed if each.status != OK)
    return "; ".join(reasons) or None


def _declares_itself(subject: _Subject) -> None:
    check_class(subject.metric_class.name, subject.metric_class)


def _repeats_itself(subject: _Subject) -> None:
    _require_values(subject, subject.uneven)
    _require_equal(
        subject.uneven,
        subject.observed(UNEVEN),
        0.0,
        "the same images give {} and then {}: keep sums in attributes that __init__ makes, none in "
        "the class or module, and seed what is drawn",
    )


def _adds_batches_up(subject: _Subject) -> None:
    _require_values(subject, subject.whole)
    _require_equal(
        subject.whole,
        subject.uneven,
        TOLERANCE,
        f"all images at once give {{}}, batches of {UNEVEN} give {{}}: add up sums over images and "
        "the number of images, and divide in compute",
    )


def _leaves_its_inputs_alone(subject: _Subject) -> None:
    original = subject.metric_class
    changed: set[str] = set()

    def watched(method: str) -> Callable[[Metric, Any], None]:
        def call(self: Metric, batch: Any) -> None:
            before = {name: tensor.clone() for name, tensor in _tensors(batch)}
            getattr(original, method)(self, batch)
            changed.update(
                name for name, tensor in _tensors(batch) if not torch.equal(tensor, before[name])
            )

        return call

    methods = {name: watched(name) for name in ("update", "update_latents")}
    watching = cast(type[Metric], type(original.__name__, (original,), methods))
    subject.observed(UNEVEN, watching)
    require(
        not changed,
        f"the metric changes batch.{', batch.'.join(sorted(changed))}, which other metrics read: "
        "compute in new tensors (no in-place operations)",
    )


def _intervals_hold_values(subject: _Subject) -> None:
    observed = [each for each in subject.whole if each.status == OK]
    held = [each for each in observed if each.ci_low is not None or each.ci_high is not None]
    if not held:
        raise NotApplicableError("the metric has no interval")
    for each in held:
        require(
            each.ci_low is not None and each.ci_high is not None and each.value is not None,
            "an interval has one end only: set ci_low and ci_high",
        )
        low, value, high = (cast(float, x) for x in (each.ci_low, each.value, each.ci_high))
        require(
            low <= value <= high,
            f"the interval {low:.6g}..{high:.6g} leaves out the value {value:.6g}",
        )


def _require_values(subject: _Subject, observed: Observations) -> None:
    """Require values that neither batches nor repetition can move."""
    if not subject.metric_class.reproducible:
        raise NotApplicableError("the metric measures the machine (reproducible = False)")
    for each in observed:
        require(each.status != FAILED, f"{each.reason}")
    if all(each.status != OK for each in observed):
        raise NotApplicableError(str(observed[0].reason))


def _require_equal(one: Observations, other: Observations, tolerance: float, message: str) -> None:
    require(
        len(one) == len(other),
        message.format(f"{len(one)} observations", f"{len(other)}"),
    )
    for first, second in zip(one, other, strict=True):
        a, b = first.value, second.value
        same = a == b or (
            a is not None and b is not None and isclose(a, b, rel_tol=tolerance, abs_tol=1e-9)
        )
        require(same, message.format(f"{a}", f"{b}"))


def _tensors(batch: Batch | LatentBatch) -> list[tuple[str, Tensor]]:
    names = ("images", "originals", "noise_free", "latents", "labels")
    found = ((name, getattr(batch, name, None)) for name in names)
    return [(name, value) for name, value in found if isinstance(value, Tensor)]


def _images(n: int, seed: int) -> Tensor:
    """Return smooth random images, uint8 ``(n, 1, 32, 32)``."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 1, 4, 4, generator=generator, dtype=torch.float32)
    smooth = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear")
    return (smooth * 255).round().byte()


_SELECTIONS = Selections(
    {
        name: {"last": 2.0, "best_test_loss": 1.5, "best_per_metric": 1.0}
        for name in ("reconstruction_loss", "fad", "fid", "inception_score")
    },
    {"reconstruction_loss": False, "fad": False, "fid": False, "inception_score": True},
)
_CHECKS: dict[str, Callable[[_Subject], str | None]] = {
    "declares unit, direction, tolerance and needs": _declares_itself,
    "has finite values, or a reason": _has_values,
    "the same images give the same values": _repeats_itself,
    "values do not depend on the size of batches": _adds_batches_up,
    "leaves its inputs as they are": _leaves_its_inputs_alone,
    "intervals hold their values": _intervals_hold_values,
}
