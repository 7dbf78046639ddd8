"""Metrics of features that a test gives."""

import torch
from contexts import cell_context

from bench.metrics.extractors.extractor import Extractor, Extractors, Features
from bench.metrics.feature_pairs import GeneratedFeatures
from bench.metrics.metric import ModelFacts
from bench.protocol import load_protocol
from bench.recording.training_record import TrainingRecord


class Identity(Extractor):
    """An image's values are its features."""

    description = "the values"
    sha256 = "0" * 64

    def __init__(self):
        pass

    def __call__(self, images):
        return Features(images.flatten(1), images.flatten(1))


class KnownFeatures(Extractors):
    """Features that a test gives: of test and training images, and of others their values.

    The reference is the test images.
    """

    def __init__(self, test, train=None):
        self._known = {"test": test, "train": test if train is None else train}
        images = {
            f"{split}_images": torch.zeros(len(features), 1, 1, 1, dtype=torch.uint8)
            for split, features in self._known.items()
        }
        super().__init__(cell_context(load_protocol("smoke"), **images))

    def get(self, name):
        return Identity()

    def of_split(self, name, split):
        return Features(self._known[split], self._known[split])


def observed(metric_class, generated, reference=None, batch_size=100, train=None, **values):
    """The one observation of a metric on generated features ``(N, D)``."""
    protocol = load_protocol("smoke", [f"{name}={value}" for name, value in values.items()])
    metric = metric_class(protocol.resolve("m", "d"))
    extractors = KnownFeatures(generated if reference is None else reference, train)
    features = GeneratedFeatures(extractors)
    for part in generated.split(batch_size):
        features.add(metric.extractors[0], part[:, None, None])
    facts = ModelFacts(0, 0, TrainingRecord((), {}, None), None, extractors, features)
    (found,) = metric.compute(facts)
    assert (found.split, found.extractor, found.extractor_sha256) == (
        "generated",
        Identity.description,
        Identity.sha256,
    )
    return found


def normal(seed, n, dimensions=8, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dimensions, generator=generator) + shift
