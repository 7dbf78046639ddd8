from types import SimpleNamespace

import numpy as np
import pytest
import torch
from contexts import cell_context
from torch import nn

from bench import registry
from bench.datasets.batches import to_unit_range
from bench.evaluation.passes import Passes
from bench.metrics.extractors.extractor import Extractor, Extractors, Features
from bench.metrics.frechet import frechet_distance, moments
from bench.metrics.metric import ModelFacts
from bench.metrics.time_steps import FrechetDistanceByTimeStep, ReconstructionLossByTimeStep
from bench.model import GenerativeModel
from bench.protocol import load_protocol
from bench.recording.training_record import TrainingRecord


class Corners(Extractor):
    """Four pixels of an image."""

    description = "four pixels"
    sha256 = "0" * 64

    def __init__(self, setting):
        pass

    def __call__(self, images):
        return Features(images[:, 0, ::16, ::16].flatten(1).cpu())


class Summing(GenerativeModel):
    """Decodes a spike train to the share of the steps that it has had."""

    version = "1"
    capabilities = frozenset({"encode", "decode", "sample_latents", "reconstruct", "sample"})
    spiking = True

    def __init__(self, protocol):
        super().__init__((1, 32, 32), protocol, None)
        self.weight = nn.Parameter(torch.zeros(1))
        self.drawn = []

    def training_step(self, images, step):
        return {"loss": 0.0}

    def encode(self, images, generator):
        chance = torch.rand((3, len(images), 1024), generator=generator)
        return (chance < (images.flatten(1) + 1) / 2).float()

    def sample_latents(self, n, generator):
        self.drawn.append((torch.rand((3, n, 1024), generator=generator) < 0.4).float())
        return self.drawn[-1]

    def decode(self, latents):
        return (latents.sum(0).reshape(-1, 1, 32, 32) * 2 / 3 - 1).clamp(-1, 1)

    def reconstruct(self, images, generator):
        return self.decode(self.encode(images, generator))

    def sample(self, n, generator):
        return self.decode(self.sample_latents(n, generator))


class Encoder(Summing):
    """It cannot draw from its prior."""

    capabilities = Summing.capabilities - {"sample_latents", "sample"}


def images(n=20):
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (n, 1, 32, 32), generator=generator, dtype=torch.uint8)


@pytest.fixture
def passes(tmp_path, monkeypatch):
    """Passes of a model, whose autoencoder is stood in for by an extractor of four pixels."""
    loaded = {"autoencoder": Corners}
    monkeypatch.setattr(registry, "extractors", SimpleNamespace(load=loaded.__getitem__))

    def build(model_class, *changes):
        protocol = load_protocol("smoke", ["evaluation_batch_size=8", *changes]).resolve("m", "d")
        context = cell_context(protocol, images(), tmp_path)
        return Passes(model_class(protocol), context, Extractors(context))

    return build


def observed(metric_class, run):
    metric = metric_class(run.context.protocol)
    for batch in run.partial_decodings():
        metric.update(batch)
    return list(
        metric.compute(ModelFacts(0, 0, TrainingRecord((), {}, None), None, run.extractors))
    )


def test_the_loss_at_each_step_is_that_of_the_prefixes(passes):
    run = passes(Summing)
    found = observed(ReconstructionLossByTimeStep, run)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for originals in to_unit_range(images()).split(8):
        latents = run.model.encode(originals, generator)
        decoded = torch.stack([run.model.decode(latents[:t]) for t in (1, 2, 3)])
        losses.append((decoded - originals).double().square().mean((2, 3, 4)))
    expected = torch.cat(losses, 1)
    assert [row.time_step for row in found] == [1, 2, 3]
    for row, values in zip(found, expected, strict=True):
        assert row.value == pytest.approx(values.mean().item(), rel=1e-6)
        half = 1.96 * values.std().item() / 20**0.5
        assert row.ci_high - row.value == pytest.approx(half, rel=1e-5)
        assert (row.n, row.split) == (20, "test")


def test_the_last_step_is_the_full_reconstruction(passes):
    run = passes(Summing)
    whole = torch.cat([batch.images for batch in run.reconstructions()])
    last = [b.images for b in run.partial_decodings() if b.split == "test" and b.time_step == 3]
    assert torch.equal(torch.cat(last), whole)


def test_the_distance_at_each_step_is_that_of_samples_from_the_prefixes(passes):
    run = passes(Summing, "generated_images=30")
    found = observed(FrechetDistanceByTimeStep, run)
    reference = moments(Corners(None)(to_unit_range(images())).pool)
    latents = torch.cat(run.model.drawn, 1)
    for t, row in enumerate(found, start=1):
        drawn = moments(Corners(None)(run.model.decode(latents[:t])).pool)
        expected = frechet_distance(
            drawn.mean, drawn.covariance, reference.mean, reference.covariance
        )
        assert row.value == pytest.approx(expected, rel=1e-6)
        assert row.ci_low < row.value < row.ci_high
        assert (row.time_step, row.n, row.split) == (t, 30, "generated")
        assert (row.extractor, row.extractor_sha256) == ("four pixels", "0" * 64)
    assert len(found) == 3


def test_time_step_images_limits_both(passes):
    run = passes(Summing, "time_step_images=5", "generated_images=30")
    for metric in (ReconstructionLossByTimeStep, FrechetDistanceByTimeStep):
        assert {row.n for row in observed(metric, run)} == {5}


def test_the_reconstructions_are_of_images_drawn_from_all(passes):
    run = passes(Summing, "time_step_images=5")
    shown = [b for b in run.partial_decodings() if b.split == "test" and b.time_step == 1]
    drawn = np.sort(np.random.RandomState(0).permutation(20)[:5])
    assert torch.equal(torch.cat([b.originals for b in shown]), to_unit_range(images()[drawn]))


def test_without_a_prior_there_is_no_distance_but_a_reason(passes):
    run = passes(Encoder)
    assert [row.time_step for row in observed(ReconstructionLossByTimeStep, run)] == [1, 2, 3]
    (row,) = observed(FrechetDistanceByTimeStep, run)
    assert (row.value, row.status) == (None, "not_applicable")
    assert row.reason == "the model cannot draw latents from its prior"


def test_one_sample_has_no_distance_but_a_reason(passes):
    (row,) = observed(FrechetDistanceByTimeStep, passes(Summing, "generated_images=1"))
    assert (row.value, row.status) == (None, "not_applicable")
    assert row.reason == "1 generated and 20 reference images: 2 of each are needed"


def test_a_run_has_every_step_and_ends_with_the_full_decoding(vae_rows):
    rows = vae_rows
    for (model, _), cell in rows.groupby(["model", "cell_key"]):
        loss = cell[cell["metric"] == "reconstruction_loss_by_time_step"]
        distance = cell[cell["metric"] == "frechet_distance_by_time_step"]
        if model == "ann_vae":
            for found in (loss, distance):
                assert list(found["status"]) == ["not_applicable"]
                assert found["reason"].item() == "not for ANNVAE: its latent has no time steps"
            continue
        assert list(loss["time_step"]) == list(distance["time_step"]) == [1, 2]
        whole = cell[cell["metric"] == "reconstruction_loss"]["value"].item()
        assert loss["value"].iloc[-1] == whole
        assert distance["extractor"].nunique() == distance["extractor_sha256"].nunique() == 1
        fad = cell[cell["metric"] == "fad"]["value"].item()
        np.testing.assert_allclose(distance["value"].iloc[-1], fad)
